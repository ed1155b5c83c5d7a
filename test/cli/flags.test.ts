import { Command } from 'commander'
import { describe, expect, it } from 'vitest'

import { addFlags, givenFlags } from '../../src/cli/flags.js'
import { commandLine } from '../../src/experiment/command.js'
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
    expect(parse('--class-token', '--no-all-pixels')).toEqual({ classToken: true, allPixels: false })
  })

  it('understand what the commands of a report say', () => {
    const settings = { out: 'runs/a', classToken: true, allPixels: false, tensorboard: true, cropScale: [0.6, 1], lr: 1e-7, fill: 'zeros' }
    const words = commandLine('pretrain', 'images', { images: 'photos', ...settings }).split(' ').slice(3)
    expect(parse(...words)).toEqual(settings)
  })

  it('are shown as what changes the default', () => {
    const command = new Command()
    addFlags(command, pretrainSchema)
    const help = command.helpInformation()
    for (const flag of ['--no-class-token', '--all-pixels']) expect(help).toContain(`  ${flag} `)
    for (const flag of ['--class-token', '--no-all-pixels']) expect(help).not.toContain(`  ${flag} `)
  })
})
