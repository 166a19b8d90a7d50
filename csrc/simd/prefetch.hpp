// Fetches the cache line of an address that is read soon, where the processor cannot foresee it.
#pragma once

#if defined(__GNUC__)
#define REPRUNE_PREFETCH(address) __builtin_prefetch(address)
#else
#define REPRUNE_PREFETCH(address)
#endif
