export { TransferError } from './http.js'
export { namesShards, expandBraces, isUrl } from './names.js'
export { openShards, type ShardOptions } from './source.js'
