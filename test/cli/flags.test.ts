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

  it('take lists with commas', () => {
    const given = parse('--jitter-strength', '0.4,0.4,0.2,0.1', '--blur-sigma', '1,3', '--solarize', '0.2')
    expect(given).toEqual({ jitterStrength: [0.4, 0.4, 0.2, 0.1], blurSigma: [1, 3], solarize: 0.2 })
  })

  it('turn off what is on by default, and on what is off', () => {
    const given = parse('--no-class-token', '--all-pixels', '--register-tokens', '4')
    expect(given).toEqual({ classToken: false, allPixels: true, registerTokens: 4 })
  })
})
