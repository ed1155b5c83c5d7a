/** A path on one line of a message: line ends and other control characters, which a terminal would obey, are spelt out. */
export const printable = (path: string): string =>
  path.replace(/[\u0000-\u001f\u007f-\u009f]/g, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** One file of a data set is not an image that can be decoded. The rest of the data set is not concerned. */
export class BrokenImageError extends Error {
  override readonly name = 'BrokenImageError'

  /**
   * @param file - Path of the file.
   * @param reason - Why, as half a sentence.
   */
  constructor(readonly file: string, readonly reason: string, options?: ErrorOptions) {
    super(`Cannot use the image '${printable(file)}': ${reason}`, options)
  }
}
