import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // libtorch keeps thread pools and thread-local modes: a process of its own for each test file.
    pool: 'forks',
    // vitest would leave one core free: of two that is half.
    maxWorkers: '100%',
    // Several processes with a thread pool each would fight for the cores. Tests that are about threads set their own number.
    env: { OMP_NUM_THREADS: '1' },
    testTimeout: 120_000,
    hookTimeout: 120_000
  }
})
