// Compiles a function for several instruction sets; the loader selects the best. Only for loops whose results do not depend on
// the width of vectors. Not under the thread sanitizer: the loader would call what takes the best, instrumented as it is, before
// the sanitizer has started.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
#define REPRUNE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define REPRUNE_CLONES
#endif
