import { describe, expect, it } from 'vitest'

import { factTable, html, page, picture } from '../../src/report/index.js'

describe('html', () => {
  it('escapes what is put in, but not what is HTML already', () => {
    const inner = html`<b>${'<&>"'}</b>`
    expect(html`<p>${inner}, ${['a<', inner, 3]}</p>`.text).toBe('<p><b>&lt;&amp;&gt;&quot;</b>, a&lt;<b>&lt;&amp;&gt;&quot;</b>3</p>')
    expect(html`${[]}`.text).toBe('')
    // A `'` may end an attribute.
    expect(html`<i title="${`a' onload="x`}">`.text).toBe('<i title="a&apos; onload=&quot;x">')
  })
})

it('a page has its pictures in itself', () => {
  const text = page('A <title>', [picture('png', Uint8Array.of(1, 2, 3), 'of "x"', 40), factTable([['n<', 1], ['m', html`<b>2</b>`]])])
  expect(text).toContain('<h1>A &lt;title&gt;</h1>')
  expect(text).toContain('<img src="data:image/png;base64,AQID" alt="of &quot;x&quot;" width="40">')
  expect(text).toContain('<tr><th>n&lt;</th><td>1</td></tr>\n<tr><th>m</th><td><b>2</b></td></tr>')
  expect(text).not.toMatch(/(src|href)="(?!data:)/)
})
