import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { type BrokenImageError, decodeCrops, decodeResized, Loader, namedContent, openImages } from '../../src/data/index.js'
import { openList } from '../../src/data/list.js'
import { InputError } from '../../src/errors.js'
import * as torch from '../../src/torch/index.js'
import { blue, filesOf, folderWith, green, paint, red, type Colour } from './support.js'

torch.setNumThreads(1)

const size = { width: 2, height: 2 }
const flat = (colour: Colour) => paint(2, 2, () => colour).png().toBuffer()

async function open(name: string, content: Uint8Array | string) {
  return openList(join(await folderWith({ [name]: content }), name))
}

async function refusal(name: string, content: Uint8Array | string): Promise<string> {
  const error: unknown = await open(name, content).then(() => null, (reason: unknown) => reason)
  expect(error).toBeInstanceOf(InputError)
  return (error as Error).message
}

describe('a list of images', () => {
  const rows: [string, string][] = [
    ['list.csv', 'path,label,note\nb.png,dog,"old, but good"\nsub/a.png,cat,\nc.png,dog,\n'],
    ['list.CSV', '\uFEFFclass, file\r\n\r\ndog,b.png\r\ncat ,sub/a.png\r\n"dog", "c.png"'],
    ['list.jsonl', '{"image":"b.png","class":"dog","id":1}\n\n{"class":"cat","image":"sub/a.png"}\r\n{"image":"c.png","class":"dog"}']
  ]
  it.each(rows)('%s', async (name, content) => {
    const colours = { 'b.png': red, 'sub/a.png': green, 'c.png': blue }
    const files = await Promise.all(Object.entries(colours).map(async ([file, colour]) => [file, await flat(colour)] as const))
    const folder = await folderWith({ ...Object.fromEntries(files), 'not-listed.png': '', [name]: content })
    const source = await openImages(join(folder, name))
    if (source.kind !== 'encoded') throw new Error('no files')
    expect(source).toMatchObject({ path: join(folder, name), length: 3, channels: 3, classes: ['cat', 'dog'], unreadable: [] })
    expect(filesOf(source)).toEqual(['b.png', 'sub/a.png', 'c.png'])
    expect([...source.labels!]).toEqual([1, 0, 1])
    expect(source.name(1)).toBe('sub/a.png')
    expect(() => source.name(3)).toThrow(/from 0 to 2 for index, received 3/)
    for (const [index, colour] of Object.values(colours).entries()) {
      const [planes] = await decodeCrops(await namedContent(source, index), [{ left: 0, top: 0, ...size }], size)
      expect([0, 4, 8].map((i) => planes![i])).toEqual([...colour])
      expect((await decodeResized(await namedContent(source, index), { resize: 2, crop: size }))[8]).toBe(colour[2])
    }
  })

  it('may lead out of its folder, by a path from the root or through the folder above', async () => {
    const elsewhere = await folderWith({ 'x.png': await flat(red) })
    const folder = await folderWith({ 'y.png': await flat(blue), 'lists/own.csv': `path\n${elsewhere}/x.png\n../y.png\n` })
    const source = await openImages(join(folder, 'lists', 'own.csv'))
    if (source.kind !== 'encoded') throw new Error('no files')
    for (const [index, colour] of [red, blue].entries()) {
      expect((await decodeResized(await namedContent(source, index), { resize: 2, crop: size }))[0]).toBe(colour[0])
    }
  })

  it('has no classes where no image has a label', async () => {
    for (const content of ['path\na\nb\n', 'path,label\na,\nb,""\n']) {
      expect(await open('x.csv', content)).toMatchObject({ classes: null, labels: null })
    }
    for (const label of ['', ',"label":null', ',"label":""']) {
      expect(await open('x.jsonl', `{"path":"a"${label}}`)).toMatchObject({ classes: null, labels: null, length: 1 })
    }
  })

  it('takes numbers for labels, and names in any script, with commas, quotes and lines in them', async () => {
    expect((await open('x.jsonl', '{"path":"a","label":7}\n{"path":"b","label":"07"}')).classes).toEqual(['07', '7'])
    const names = ['Füße,1.jpg', 'say "x".jpg', 'two\nlines.jpg', '写真.jpg', ' outer .jpg']
    const csv = names.map((name) => `"${name.replaceAll('"', '""')}"`).join('\n')
    expect(filesOf(await open('x.csv', `path\n${csv}`))).toEqual(names)
    expect(filesOf(await open('x.jsonl', names.map((path) => JSON.stringify({ path })).join('\n')))).toEqual(names)
  })

  it('of which some are missing or broken, tells at use and not before', async () => {
    const list = 'path\ngone.png\ngood.png\ntext.png\n'
    const folder = await folderWith({ 'good.png': await flat(red), 'text.png': 'no image', 'list.csv': list })
    const broken: BrokenImageError[] = []
    const onBroken = (error: BrokenImageError) => broken.push(error)
    const loader = new Loader(await openImages(join(folder, 'list.csv')), { size, device: 'cpu', maxBroken: 0.7, onBroken })
    for await (const { indices, images } of loader.all(3)) {
      expect(indices).toEqual([1])
      images.dispose()
    }
    expect(loader.broken.map(({ file, reason }) => [file, reason])).toEqual([
      [join(folder, 'gone.png'), 'the file cannot be read (ENOENT)'],
      [join(folder, 'text.png'), 'the content is not an image of a known format']
    ])
    expect(broken).toHaveLength(2)
  })

  it('can be limited, with the classes of the whole', async () => {
    const content = `path,label\n${Array.from({ length: 50 }, (_, i) => `${i}.jpg,${i % 5}`).join('\n')}`
    const some = await openImages(join(await folderWith({ 'x.csv': content }), 'x.csv'), { limit: 7 })
    expect(some).toMatchObject({ length: 7, classes: ['0', '1', '2', '3', '4'] })
    for (let i = 0; i < 7; i++) expect(some.labels![i]).toBe(Number.parseInt(some.name(i)) % 5)
  })

  it.each([
    ['x.csv', 'name,label\na,b', /^Expected a column path, image or file for line 1 of the list '.*x\.csv', received 'name, label'$/],
    ['x.csv', 'path;label\na;b', /column path, image or file.*received 'path;label'$/],
    ['x.csv', '\npath,file\na,b', /one of path, image, file for line 2 .*received 'path and file'$/],
    ['x.csv', 'path,path\na,b', /one of path, image, file for line 1 .*received 'path and path'$/],
    ['x.csv', 'path,class,label\na,b,c', /one of label, class for line 1 /],
    ['x.csv', 'path,label\na,b\n,b\n', /the path of an image for line 3 .*received ''$/],
    ['x.csv', 'path,label\na,b\n\nc\n', /2 cells, as many as columns, for line 4 .*received 1$/],
    ['x.csv', 'path\na\nb,c\n', /1 cells, as many as columns, for line 3 .*received 2$/],
    ['x.csv', 'path,label\na,b\nc,\n', /a label, like line 2, for line 3 .*received 'none'$/],
    ['x.csv', 'path,label\na,\nc,cat\n', /no label, like line 2, for line 3 .*received 'cat'$/],
    ['x.csv', 'path\na\nb\na\n', /each image once for line 4 .*received 'a, as in line 2'$/],
    ['x.csv', 'path\n"a\nb\n', /CSV for line \d of .*Quote Not Closed/],
    ['x.csv', 'path\na\n"b"c\n', /CSV for line 3 of .*Invalid Closing Quote/],
    ['x.csv', '', /at least one image for the list '.*x\.csv', received 'none'$/],
    ['x.csv', 'path,label\n', /at least one image/],
    ['x.jsonl', '\n\n', /at least one image/],
    ['x.jsonl', '{"path":"a"}\n{"label":"a"}', /a key path, image or file for line 2 .*received 'label'$/],
    ['x.jsonl', '{"path":"a"}\n\nno json', /a JSON object for line 3 .*received 'no json'$/],
    ['x.jsonl', '["a"]', /a JSON object for line 1 .*received \[ 'a' \]$/],
    ['x.jsonl', 'null', /a JSON object for line 1 .*received null$/],
    ['x.jsonl', '{"path":3}', /the path of an image for line 1 .*received 3$/],
    ['x.jsonl', '{"path":""}', /the path of an image for line 1 .*received ''$/],
    ['x.jsonl', '{"path":"a","label":["x"]}', /a text or a number as label for line 1 .*received \[ 'x' \]$/],
    ['x.jsonl', '{"path":"a","file":"b"}', /one of path, image, file for line 1 /],
    ['x.jsonl', '{"path":"a","label":"x"}\n{"path":"b"}', /a label, like line 1, for line 2 /],
    ['x.csv', Buffer.from('path\nF\xfc\xdfe.jpg\n', 'latin1'), /text in UTF-8 for the list '.*x\.csv'/]
  ] as const)('%s: %j is refused', async (name, content, message) => {
    expect(await refusal(name, content)).toMatch(message)
  })

  it('that is not there, or is a folder', async () => {
    const folder = await folderWith({ 'folder.csv/a.png': '' })
    await expect(openImages(join(folder, 'x.csv'))).rejects.toThrow(/^Expected a list that exists for images '.*x\.csv', received 'nothing/)
    expect(await openImages(join(folder, 'folder.csv'))).toMatchObject({ length: 1 })
  })
})
