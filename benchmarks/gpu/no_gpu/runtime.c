// CUDA's runtime without a GPU: memory is the host's, and what would run on a GPU is counted and not run. See __init__.py.
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// launches, copies to the device, copies from it, copies on it, waits of the host, waits of streams, allocations
long no_gpu_calls[7];

static cudaError_t count(int which) {
    ++no_gpu_calls[which];
    return cudaSuccess;
}

static cudaError_t allocate(void** to, size_t bytes) {
    if (posix_memalign(to, 512, bytes + 1) != 0) return cudaErrorMemoryAllocation;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* n) { return *n = 0, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* n) { return *n = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* n) { return *n = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* all) { return *free = *all = (size_t)80 << 30, cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int a, int b) { return *can = 0, cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* p, int device) {  // those of an H100
    memset(p, 0, sizeof *p);
    strcpy(p->name, "no GPU");
    p->major = 9;
    p->warpSize = 32;
    p->multiProcessorCount = 132;
    p->totalGlobalMem = (size_t)80 << 30;
    p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = 232448, p->sharedMemPerMultiprocessor = 233472;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->unifiedAddressing = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attribute, int device) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
        default: *value = 1;
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* a, const void* kernel) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024, a->numRegs = 32, a->binaryVersion = a->ptxVersion = 90;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void* kernel, int threads, size_t shared,
                                                                   unsigned flags) {
    return *n = 2, cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void* kernel, int threads, size_t shared) {
    return *n = 2, cudaSuccess;
}

cudaError_t cudaMalloc(void** to, size_t bytes) { return count(6), allocate(to, bytes); }
cudaError_t cudaFree(void* p) { return free(p), cudaSuccess; }
cudaError_t cudaHostAlloc(void** to, size_t bytes, unsigned flags) { return allocate(to, bytes); }
cudaError_t cudaMallocHost(void** to, size_t bytes) { return allocate(to, bytes); }
cudaError_t cudaFreeHost(void* p) { return free(p), cudaSuccess; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* a, const void* p) {
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeHost, a->devicePointer = a->hostPointer = (void*)p;
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    if (kind == cudaMemcpyDeviceToHost) memcpy(to, from, bytes);  // others are a GPU's work
    return count(kind == cudaMemcpyHostToDevice ? 1 : kind == cudaMemcpyDeviceToHost ? 2 : 3);
}

static int many;
static cudaError_t stream(cudaStream_t* s) { return *s = (cudaStream_t)(size_t)(256 + many++ % 64), cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned flags, int priority) { return stream(s); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) { return stream(s); }
cudaError_t cudaStreamGetPriority(cudaStream_t s, int* priority) { return *priority = 0, cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* most) { return *least = 0, *most = -5, cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus* status) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return count(4); }
cudaError_t cudaDeviceSynchronize(void) { return count(4); }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return count(4); }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) { return count(5); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) { return *e = malloc(8), cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return *e = malloc(8), cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return free(e), cudaSuccess; }

cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** given, size_t shared, cudaStream_t stream) {
    return count(0);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** given, size_t shared, cudaStream_t stream) {
    return count(0);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* kernel, void** given) { return count(0); }
cudaError_t __cudaGetKernel(cudaKernel_t* to, const void* kernel) { return *to = (cudaKernel_t)kernel, cudaSuccess; }
void** __cudaRegisterFatBinary(void* binary) {
    static void* handle[2];
    return handle;
}
static __thread struct {
    dim3 grid, block;
    size_t shared;
    void* stream;
} given;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
    given.grid = grid, given.block = block, given.shared = shared, given.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = given.grid, *block = given.block, *shared = given.shared, *(void**)stream = given.stream;
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** to, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult* result) {
    *to = dlsym(RTLD_DEFAULT, name);
    if (result != 0) *result = *to != 0 ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) { return "there is no GPU"; }
const char* cudaGetErrorName(cudaError_t error) { return "no GPU"; }
