/** A word as a shell of Unix reads it. Single quotes keep everything as it is, but for themselves. */
export const quote = (word: string): string => (/^[\w./:,%=+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)
