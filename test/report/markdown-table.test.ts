import { describe, expect, it } from 'vitest'

import { markdownTable } from '../../src/report/index.js'

describe('markdownTable', () => {
  it('aligns columns of numbers right', () => {
    expect(markdownTable(['model', 'top-1 (%)'], [['vit_tiny', 93.1], ['from scratch', 8.25]]).split('\n')).toEqual([
      '| model        | top-1 (%) |',
      '| :----------- | --------: |',
      '| vit_tiny     |      93.1 |',
      '| from scratch |      8.25 |'
    ])
    expect(markdownTable(['a', 'b'], [['x', 1], ['y', 'none']]).split('\n')[1]).toBe('| :- | :--- |')
    expect(markdownTable(['a'], []).split('\n')).toHaveLength(2)
  })

  it('writes what would be markup as text', () => {
    const [, , row] = markdownTable(['class'], [['a|b <b>*x*</b> `c` [d] __e__ \\ &lt;\nnew']]).split('\n')
    expect(row).toBe('| a\\|b \\<b\\>\\*x\\*\\</b\\> \\`c\\` \\[d\\] \\_\\_e\\_\\_ \\\\ \\&lt; new |')
  })

  it('refuses rows of another length', () => {
    expect(() => markdownTable(['a', 'b'], [['x', 1], ['y']])).toThrow(/2 cells, one for each column, for row 1, received '1 cells'/)
  })
})
