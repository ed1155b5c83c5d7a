import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'

const { withTables } = (await import(new URL('../scripts/recipes-table.mjs', import.meta.url).href)) as { withTables: (page: string) => string }

it('docs/recipes.md says what was measured: node scripts/recipes-table.mjs writes its tables', async () => {
  const page = await readFile(new URL('../docs/recipes.md', import.meta.url), 'utf8')
  expect(page).toContain('| overhang |')
  expect(page).toBe(withTables(page))
})
