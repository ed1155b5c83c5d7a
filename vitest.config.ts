import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // libtorch keeps thread pools and thread-local modes: a process of its own for each test file.
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 120_000
  }
})
