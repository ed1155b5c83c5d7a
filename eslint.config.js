import tseslint from 'typescript-eslint'

// The layers of the project, lowest first. A file imports from its own layer or a lower one.
const layers = [['native'], ['torch'], ['nn', 'optim', 'io', 'report'], ['gmml', 'vision', 'data'], ['train', 'evaluate'], ['experiment'], ['cli']]

// Folders that also do without some lower ones.
const without = { report: ['native', 'torch', 'nn', 'optim'] } // draws where there is no libtorch

const layerRules = layers.flatMap((folders, level) => {
  const higher = layers.slice(level + 1).flat()
  return folders.map((folder) => {
    const group = [...higher, ...(without[folder] ?? [])].map((name) => `**/../${name}/**`)
    return {
      files: [`src/${folder}/**/*.ts`],
      rules: {
        '@typescript-eslint/no-restricted-imports': [
          'error',
          { patterns: [{ group, message: 'Imports go downward only: see the layers in the README.' }] }
        ]
      }
    }
  })
})

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'build-cmake/', 'build-examples/', 'node_modules/', 'runs/', 'bundle/', 'api/', '**/*.generated.ts'] },
  ...tseslint.configs.recommendedTypeChecked.map((config) => ({ ...config, files: ['**/*.ts'] })),
  {
    files: ['**/*.ts'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': 'off',
      '@typescript-eslint/consistent-type-imports': 'error'
    }
  },
  ...layerRules.filter((entry) => entry.rules['@typescript-eslint/no-restricted-imports'][1].patterns[0].group.length > 0)
)
