import { escapeUTF8 } from 'entities'

/** Text that is HTML already. */
class Html {
  constructor(readonly text: string) {}
}

export type { Html }

/** What can stand in HTML: texts are escaped, of lists each member is put in. */
export type Content = Html | string | number | readonly Content[]

function write(content: Content): string {
  if (content instanceof Html) return content.text
  if (typeof content === 'object') return content.map(write).join('')
  return escapeUTF8(String(content))
}

/** A template of HTML: what is put in is escaped, unless it is HTML. */
export const html = (texts: TemplateStringsArray, ...contents: readonly Content[]): Html =>
  new Html(texts.map((text, i) => text + (i < contents.length ? write(contents[i]!) : '')).join(''))

/** A picture that is part of the page. @param type - Such as 'png'. @param width - In CSS pixels; default: as it is. */
export function picture(type: 'png' | 'svg+xml', content: Uint8Array | string, alt: string, width?: number): Html {
  const data = `data:image/${type};base64,${Buffer.from(content).toString('base64')}`
  return html`<img src="${data}" alt="${alt}"${width === undefined ? [] : html` width="${width}"`}>`
}

/** A table of two columns: names and what they have. */
export const factTable = (facts: readonly (readonly [name: string, value: Content])[]): Html =>
  html`<table>${facts.map(([name, value]) => html`<tr><th>${name}</th><td>${value}</td></tr>\n`)}</table>`

const STYLE = `
  body { font: 15px/1.5 Inter, Helvetica, Arial, sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em }
  h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
  table { border-collapse: collapse } th { text-align: left; font-weight: 400; color: #666; padding-right: 2em; vertical-align: top }
  td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
  img { max-width: 100%; height: auto } figure { margin: 0 0 1em } figcaption { color: #666 }
  pre { background: #f5f5f5; padding: 0.7em 1em; overflow-x: auto } strong { font-weight: 600 }
  .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1em }
`

/** A page that needs no other file. */
export const page = (title: string, body: Content): string =>
  html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title}</title><style>${new Html(STYLE)}</style></head>
<body>
<h1>${title}</h1>
${body}
</body>
</html>
`.text
