// Macros by which one source is compiled for the GPU and for the host.
#pragma once

#ifdef __CUDACC__
#define REPRUNE_DEVICE __device__
#define REPRUNE_BOTH __host__ __device__
#define REPRUNE_NO_UNROLL _Pragma("unroll 1")
#else
#define REPRUNE_DEVICE
#define REPRUNE_BOTH
#define REPRUNE_NO_UNROLL
#endif
