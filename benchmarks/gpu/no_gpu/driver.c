// CUDA's driver without a GPU, as far as Triton and torch call it. See __init__.py.
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOGGED = 4096 };
long no_gpu_driver_launches;
double no_gpu_launched_at[LOGGED];         // of the last ones: seconds of the thread's CPU time
const char* no_gpu_launched_kernel[LOGGED];  // and their names; launch k is at k % LOGGED

static int context;

CUresult cuDriverGetVersion(int* n) { return *n = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* n) { return *n = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int number) { return *device = 0, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {  // those of an H100
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 232448; break;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
        default: *value = 1;
    }
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* c) { return *c = (CUcontext)&context, CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice device) { return *c = (CUcontext)&context, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
    return *flags = 0, *active = 1, CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) { return *module = malloc(8), CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* kernel, CUmodule module, const char* name) {
    return *kernel = (CUfunction)strdup(name), CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction kernel) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : attribute == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* how, CUfunction kernel, void** given, void** extra) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    const long k = no_gpu_driver_launches++ % LOGGED;
    no_gpu_launched_at[k] = now.tv_sec + 1e-9 * now.tv_nsec;
    no_gpu_launched_kernel[k] = (const char*)kernel;
    return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void* to, CUpointer_attribute attribute, CUdeviceptr p) {
    return *(CUdeviceptr*)to = p, CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char** text) { return *text = "there is no GPU", CUDA_SUCCESS; }
CUresult cuGetProcAddress_v2(const char* name, void** to, int version, cuuint64_t flags, CUdriverProcAddressQueryResult* result) {
    *to = dlsym(RTLD_DEFAULT, name);
    if (result != 0) *result = *to != 0 ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *to != 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
