"""The ONNX Runtime C API as ort_api.h declares it; names are the library's own."""

from libc.stdint cimport int64_t, uint32_t


cdef extern from "ort_api.h" nogil:
    ctypedef struct OrtStatus:
        pass
    ctypedef struct OrtEnv:
        pass
    ctypedef struct OrtSession:
        pass
    ctypedef struct OrtSessionOptions:
        pass
    ctypedef struct OrtThreadingOptions:
        pass
    ctypedef struct OrtRunOptions:
        pass
    ctypedef struct OrtCUDAProviderOptionsV2:
        pass
    ctypedef struct OrtTensorRTProviderOptionsV2:
        pass
    ctypedef struct OrtMemoryInfo:
        pass
    ctypedef struct OrtAllocator:
        pass
    ctypedef struct OrtValue:
        pass
    ctypedef struct OrtTypeInfo:
        pass
    ctypedef struct OrtTensorTypeAndShapeInfo:
        pass
    ctypedef const void* const* ort_table
    ctypedef struct OrtApiBase:
        ort_table (*GetApi)(uint32_t version) noexcept
        const char* (*GetVersionString)() noexcept
    int ORT_API_VERSION_NEEDED

    int ort_GetErrorCode(ort_table api, const OrtStatus* status) noexcept
    const char* ort_GetErrorMessage(ort_table api, const OrtStatus* status) noexcept
    OrtStatus* ort_CreateSession(ort_table api, const OrtEnv* env, const char* path,
        const OrtSessionOptions* options, OrtSession** out) noexcept
    OrtStatus* ort_Run(ort_table api, OrtSession* session, const OrtRunOptions* options, const char* const* input_names,
        const OrtValue* const* inputs, size_t n_inputs, const char* const* output_names, size_t n_outputs,
        OrtValue** outputs) noexcept
    OrtStatus* ort_CreateSessionOptions(ort_table api, OrtSessionOptions** out) noexcept
    OrtStatus* ort_EnableProfiling(ort_table api, OrtSessionOptions* options, const char* prefix) noexcept
    OrtStatus* ort_DisableMemPattern(ort_table api, OrtSessionOptions* options) noexcept
    OrtStatus* ort_DisableCpuMemArena(ort_table api, OrtSessionOptions* options) noexcept
    OrtStatus* ort_SetSessionGraphOptimizationLevel(ort_table api, OrtSessionOptions* options, int level) noexcept
    OrtStatus* ort_SetIntraOpNumThreads(ort_table api, OrtSessionOptions* options, int threads) noexcept
    OrtStatus* ort_SetInterOpNumThreads(ort_table api, OrtSessionOptions* options, int threads) noexcept
    OrtStatus* ort_SessionGetInputCount(ort_table api, const OrtSession* session, size_t* out) noexcept
    OrtStatus* ort_SessionGetOutputCount(ort_table api, const OrtSession* session, size_t* out) noexcept
    OrtStatus* ort_SessionGetInputTypeInfo(ort_table api, const OrtSession* session, size_t index,
        OrtTypeInfo** out) noexcept
    OrtStatus* ort_SessionGetOutputTypeInfo(ort_table api, const OrtSession* session, size_t index,
        OrtTypeInfo** out) noexcept
    OrtStatus* ort_SessionGetInputName(ort_table api, const OrtSession* session, size_t index,
        OrtAllocator* allocator, char** out) noexcept
    OrtStatus* ort_SessionGetOutputName(ort_table api, const OrtSession* session, size_t index,
        OrtAllocator* allocator, char** out) noexcept
    OrtStatus* ort_SessionGetOverridableInitializerCount(ort_table api, const OrtSession* session, size_t* out) noexcept
    OrtStatus* ort_SessionGetOverridableInitializerTypeInfo(ort_table api, const OrtSession* session, size_t index,
        OrtTypeInfo** out) noexcept
    OrtStatus* ort_SessionGetOverridableInitializerName(ort_table api, const OrtSession* session, size_t index,
        OrtAllocator* allocator, char** out) noexcept
    OrtStatus* ort_CreateRunOptions(ort_table api, OrtRunOptions** out) noexcept
    OrtStatus* ort_CreateTensorAsOrtValue(ort_table api, OrtAllocator* allocator, const int64_t* shape,
        size_t rank, int type, OrtValue** out) noexcept
    OrtStatus* ort_CreateTensorWithDataAsOrtValue(ort_table api, const OrtMemoryInfo* memory, void* data,
        size_t size, const int64_t* shape, size_t rank, int type, OrtValue** out) noexcept
    OrtStatus* ort_GetTensorMutableData(ort_table api, OrtValue* value, void** out) noexcept
    OrtStatus* ort_GetStringTensorDataLength(ort_table api, const OrtValue* value, size_t* out) noexcept
    OrtStatus* ort_GetStringTensorContent(ort_table api, const OrtValue* value, void* data, size_t size,
        size_t* offsets, size_t n_offsets) noexcept
    OrtStatus* ort_CastTypeInfoToTensorInfo(ort_table api, const OrtTypeInfo* type,
        const OrtTensorTypeAndShapeInfo** out) noexcept
    OrtStatus* ort_GetTensorElementType(ort_table api, const OrtTensorTypeAndShapeInfo* info, int* out) noexcept
    OrtStatus* ort_GetDimensionsCount(ort_table api, const OrtTensorTypeAndShapeInfo* info, size_t* out) noexcept
    OrtStatus* ort_GetDimensions(ort_table api, const OrtTensorTypeAndShapeInfo* info, int64_t* out,
        size_t rank) noexcept
    OrtStatus* ort_GetSymbolicDimensions(ort_table api, const OrtTensorTypeAndShapeInfo* info, const char** out,
        size_t rank) noexcept
    OrtStatus* ort_GetTensorShapeElementCount(ort_table api, const OrtTensorTypeAndShapeInfo* info,
        size_t* out) noexcept
    OrtStatus* ort_GetTensorTypeAndShape(ort_table api, const OrtValue* value,
        OrtTensorTypeAndShapeInfo** out) noexcept
    OrtStatus* ort_CreateMemoryInfo(ort_table api, const char* name, int allocator_type, int ordinal, int memory_type,
        OrtMemoryInfo** out) noexcept
    OrtStatus* ort_CreateCpuMemoryInfo(ort_table api, int allocator_type, int memory_type,
        OrtMemoryInfo** out) noexcept
    OrtStatus* ort_AllocatorAlloc(ort_table api, OrtAllocator* allocator, size_t size, void** out) noexcept
    OrtStatus* ort_AllocatorFree(ort_table api, OrtAllocator* allocator, void* data) noexcept
    OrtStatus* ort_GetAllocatorWithDefaultOptions(ort_table api, OrtAllocator** out) noexcept
    void ort_ReleaseStatus(ort_table api, OrtStatus* status) noexcept
    void ort_ReleaseMemoryInfo(ort_table api, OrtMemoryInfo* memory) noexcept
    void ort_ReleaseSession(ort_table api, OrtSession* session) noexcept
    void ort_ReleaseValue(ort_table api, OrtValue* value) noexcept
    void ort_ReleaseRunOptions(ort_table api, OrtRunOptions* options) noexcept
    void ort_ReleaseTypeInfo(ort_table api, OrtTypeInfo* type) noexcept
    void ort_ReleaseTensorTypeAndShapeInfo(ort_table api, OrtTensorTypeAndShapeInfo* info) noexcept
    void ort_ReleaseSessionOptions(ort_table api, OrtSessionOptions* options) noexcept
    OrtStatus* ort_CreateEnvWithGlobalThreadPools(ort_table api, int severity, const char* name,
        const OrtThreadingOptions* options, OrtEnv** out) noexcept
    OrtStatus* ort_DisablePerSessionThreads(ort_table api, OrtSessionOptions* options) noexcept
    OrtStatus* ort_CreateThreadingOptions(ort_table api, OrtThreadingOptions** out) noexcept
    void ort_ReleaseThreadingOptions(ort_table api, OrtThreadingOptions* options) noexcept
    OrtStatus* ort_GetAvailableProviders(ort_table api, char*** out, int* count) noexcept
    OrtStatus* ort_ReleaseAvailableProviders(ort_table api, char** providers, int count) noexcept
    OrtStatus* ort_AddSessionConfigEntry(ort_table api, OrtSessionOptions* options, const char* key,
        const char* value) noexcept
    OrtStatus* ort_CreateAllocator(ort_table api, const OrtSession* session, const OrtMemoryInfo* memory,
        OrtAllocator** out) noexcept
    void ort_ReleaseAllocator(ort_table api, OrtAllocator* allocator) noexcept
    OrtStatus* ort_SetGlobalIntraOpNumThreads(ort_table api, OrtThreadingOptions* options, int threads) noexcept
    OrtStatus* ort_SetGlobalInterOpNumThreads(ort_table api, OrtThreadingOptions* options, int threads) noexcept
    OrtStatus* ort_SetGlobalSpinControl(ort_table api, OrtThreadingOptions* options, int spin) noexcept
    OrtStatus* ort_AddRunConfigEntry(ort_table api, OrtRunOptions* options, const char* key,
        const char* value) noexcept
    OrtStatus* ort_SessionOptionsAppendExecutionProvider_TensorRT_V2(ort_table api, OrtSessionOptions* options,
        const OrtTensorRTProviderOptionsV2* provider) noexcept
    OrtStatus* ort_CreateTensorRTProviderOptions(ort_table api, OrtTensorRTProviderOptionsV2** out) noexcept
    OrtStatus* ort_UpdateTensorRTProviderOptions(ort_table api, OrtTensorRTProviderOptionsV2* provider,
        const char* const* keys, const char* const* values, size_t count) noexcept
    void ort_ReleaseTensorRTProviderOptions(ort_table api, OrtTensorRTProviderOptionsV2* provider) noexcept
    OrtStatus* ort_SessionOptionsAppendExecutionProvider_CUDA_V2(ort_table api, OrtSessionOptions* options,
        const OrtCUDAProviderOptionsV2* provider) noexcept
    OrtStatus* ort_CreateCUDAProviderOptions(ort_table api, OrtCUDAProviderOptionsV2** out) noexcept
    OrtStatus* ort_UpdateCUDAProviderOptions(ort_table api, OrtCUDAProviderOptionsV2* provider,
        const char* const* keys, const char* const* values, size_t count) noexcept
    void ort_ReleaseCUDAProviderOptions(ort_table api, OrtCUDAProviderOptionsV2* provider) noexcept
    OrtStatus* ort_GetResizedStringTensorElementBuffer(ort_table api, OrtValue* value, size_t index, size_t size,
        char** out) noexcept
