import { Command } from 'commander'
import { describe, expect, it } from 'vitest'

import { addFlags, givenFlags } from '../../src/cli/flags.js'
import { pretrainSchema } from '../../src/train/index.js'

describe('the flags of a schema', () => {
  const parse = (...given: string[]) => {
    const command = new Command()
    addFlags(command, pretrainSchema)
    return givenFlags(command.parse(['node', 'test', ...given]))
  }

  it('are there only if they were given', () => expect(parse()).toEqual({}))

  it('turn off what is on by default, and on what is off', () => {
    const given = parse('--no-class-token', '--all-pixels', '--register-tokens', '4')
    expect(given).toEqual({ classToken: false, allPixels: true, registerTokens: 4 })
  })
})
