# The same addon as CMakeLists.txt, for node-gyp: npm run build:gyp. The variables come from scripts/build-native.mjs, which also writes the
# few files that include all sources.
{
  'variables': { 'libtorch%': '', 'sources%': 'native', 'cuda%': 0, 'jpeg%': 0, 'cuda_include%': '' },
  'targets': [
    {
      'target_name': 'gmml',
      'sources': ['<!@(node -p "fs.readdirSync(\'<(sources)\').filter((n) => n.endsWith(\'.cc\')).map((n) => \'<(sources)/\' + n).join(\' \')")'],
      'defines': ['NAPI_VERSION=9', 'NAPI_CPP_EXCEPTIONS', 'NDEBUG'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      # Node's own flags switch off what libtorch needs, and name an older standard.
      'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20'],
      'cflags!': ['-fno-exceptions'],
      'cflags_cc': [
        '-std=c++20', '-O3', '-Wall', '-Wextra', '-fvisibility=hidden', '-fvisibility-inlines-hidden',
        '-isystem <(libtorch)/include', '-isystem <(libtorch)/include/torch/csrc/api/include'
      ],
      # Registered kernels are lost where the linker drops a library: see CMakeLists.txt.
      'ldflags': ['-Wl,--no-as-needed', '-Wl,--disable-new-dtags', '-Wl,-rpath,<(libtorch)/lib'],
      'libraries': ['-L<(libtorch)/lib', '-lc10', '-ltorch_cpu', '-ltorch'],
      'xcode_settings': {
        'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
        'GCC_ENABLE_CPP_RTTI': 'YES',
        'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
        'GCC_OPTIMIZATION_LEVEL': '3',
        'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
        'OTHER_CPLUSPLUSFLAGS': ['-isystem <(libtorch)/include', '-isystem <(libtorch)/include/torch/csrc/api/include'],
        'OTHER_LDFLAGS': ['-Wl,-rpath,<(libtorch)/lib']
      },
      'conditions': [
        ['jpeg==1', { 'defines': ['GMML_JPEG=1'], 'libraries': ['-ljpeg'] }],
        ['cuda==1', {
          'defines': ['GMML_CUDA=1'],
          'libraries': ['-lc10_cuda', '-ltorch_cuda'],
          'conditions': [['cuda_include!=""', { 'defines': ['GMML_CUDA_HEADERS=1'], 'cflags_cc': ['-isystem <(cuda_include)'] }]]
        }]
      ]
    }
  ]
}
