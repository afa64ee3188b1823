/* The slots of ONNX Runtime's C API that sluice calls, as typed inline functions.
 *
 * OrtApi is a table of function pointers whose order never changes: new ones are only appended. So a slot is a number,
 * and a library that offers API version 17 (ONNX Runtime 1.17) or later has all of those used here. In C since a table of differently
 * typed function pointers is not something Cython can declare without writing each type twice.
 * tests/kernels/test_session.py calls every slot against the installed library.
 */
#ifndef SLUICE_ORT_API_H
#define SLUICE_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION_NEEDED 17

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtThreadingOptions OrtThreadingOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtCUDAProviderOptionsV2 OrtCUDAProviderOptionsV2;
typedef struct OrtTensorRTProviderOptionsV2 OrtTensorRTProviderOptionsV2;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef struct {
    const void *const *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

typedef const void *const *ort_table;

#define ORT_CALL(number, result, name, types, parameters, arguments)                        \
    static inline result ort_##name parameters { return ((result(*) types)api[number]) arguments; }

ORT_CALL(1, int, GetErrorCode, (const OrtStatus *), (ort_table api, const OrtStatus *status), (status))
ORT_CALL(2, const char *, GetErrorMessage, (const OrtStatus *), (ort_table api, const OrtStatus *status), (status))
ORT_CALL(7, OrtStatus *, CreateSession, (const OrtEnv *, const char *, const OrtSessionOptions *, OrtSession **),
         (ort_table api, const OrtEnv *env, const char *path, const OrtSessionOptions *options, OrtSession **out),
         (env, path, options, out))
ORT_CALL(9, OrtStatus *, Run,
         (OrtSession *, const OrtRunOptions *, const char *const *, const OrtValue *const *, size_t, const char *const *,
          size_t, OrtValue **),
         (ort_table api, OrtSession *session, const OrtRunOptions *options, const char *const *input_names,
          const OrtValue *const *inputs, size_t n_inputs, const char *const *output_names, size_t n_outputs,
          OrtValue **outputs),
         (session, options, input_names, inputs, n_inputs, output_names, n_outputs, outputs))
ORT_CALL(10, OrtStatus *, CreateSessionOptions, (OrtSessionOptions **), (ort_table api, OrtSessionOptions **out), (out))
ORT_CALL(14, OrtStatus *, EnableProfiling, (OrtSessionOptions *, const char *),
         (ort_table api, OrtSessionOptions *options, const char *prefix), (options, prefix))
ORT_CALL(17, OrtStatus *, DisableMemPattern, (OrtSessionOptions *), (ort_table api, OrtSessionOptions *options),
         (options))
ORT_CALL(19, OrtStatus *, DisableCpuMemArena, (OrtSessionOptions *), (ort_table api, OrtSessionOptions *options),
         (options))
ORT_CALL(23, OrtStatus *, SetSessionGraphOptimizationLevel, (OrtSessionOptions *, int),
         (ort_table api, OrtSessionOptions *options, int level), (options, level))
ORT_CALL(24, OrtStatus *, SetIntraOpNumThreads, (OrtSessionOptions *, int),
         (ort_table api, OrtSessionOptions *options, int threads), (options, threads))
ORT_CALL(25, OrtStatus *, SetInterOpNumThreads, (OrtSessionOptions *, int),
         (ort_table api, OrtSessionOptions *options, int threads), (options, threads))
ORT_CALL(30, OrtStatus *, SessionGetInputCount, (const OrtSession *, size_t *),
         (ort_table api, const OrtSession *session, size_t *out), (session, out))
ORT_CALL(31, OrtStatus *, SessionGetOutputCount, (const OrtSession *, size_t *),
         (ort_table api, const OrtSession *session, size_t *out), (session, out))
ORT_CALL(32, OrtStatus *, SessionGetOverridableInitializerCount, (const OrtSession *, size_t *),
         (ort_table api, const OrtSession *session, size_t *out), (session, out))
ORT_CALL(33, OrtStatus *, SessionGetInputTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **),
         (ort_table api, const OrtSession *session, size_t index, OrtTypeInfo **out), (session, index, out))
ORT_CALL(34, OrtStatus *, SessionGetOutputTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **),
         (ort_table api, const OrtSession *session, size_t index, OrtTypeInfo **out), (session, index, out))
ORT_CALL(35, OrtStatus *, SessionGetOverridableInitializerTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **),
         (ort_table api, const OrtSession *session, size_t index, OrtTypeInfo **out), (session, index, out))
ORT_CALL(36, OrtStatus *, SessionGetInputName, (const OrtSession *, size_t, OrtAllocator *, char **),
         (ort_table api, const OrtSession *session, size_t index, OrtAllocator *allocator, char **out),
         (session, index, allocator, out))
ORT_CALL(37, OrtStatus *, SessionGetOutputName, (const OrtSession *, size_t, OrtAllocator *, char **),
         (ort_table api, const OrtSession *session, size_t index, OrtAllocator *allocator, char **out),
         (session, index, allocator, out))
ORT_CALL(38, OrtStatus *, SessionGetOverridableInitializerName, (const OrtSession *, size_t, OrtAllocator *, char **),
         (ort_table api, const OrtSession *session, size_t index, OrtAllocator *allocator, char **out),
         (session, index, allocator, out))
ORT_CALL(39, OrtStatus *, CreateRunOptions, (OrtRunOptions **), (ort_table api, OrtRunOptions **out), (out))
ORT_CALL(48, OrtStatus *, CreateTensorAsOrtValue, (OrtAllocator *, const int64_t *, size_t, int, OrtValue **),
         (ort_table api, OrtAllocator *allocator, const int64_t *shape, size_t rank, int type, OrtValue **out),
         (allocator, shape, rank, type, out))
ORT_CALL(49, OrtStatus *, CreateTensorWithDataAsOrtValue,
         (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, int, OrtValue **),
         (ort_table api, const OrtMemoryInfo *memory, void *data, size_t size, const int64_t *shape, size_t rank,
          int type, OrtValue **out),
         (memory, data, size, shape, rank, type, out))
ORT_CALL(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **), (ort_table api, OrtValue *value, void **out),
         (value, out))
ORT_CALL(53, OrtStatus *, GetStringTensorDataLength, (const OrtValue *, size_t *),
         (ort_table api, const OrtValue *value, size_t *out), (value, out))
ORT_CALL(54, OrtStatus *, GetStringTensorContent, (const OrtValue *, void *, size_t, size_t *, size_t),
         (ort_table api, const OrtValue *value, void *data, size_t size, size_t *offsets, size_t n_offsets),
         (value, data, size, offsets, n_offsets))
ORT_CALL(55, OrtStatus *, CastTypeInfoToTensorInfo, (const OrtTypeInfo *, const OrtTensorTypeAndShapeInfo **),
         (ort_table api, const OrtTypeInfo *type, const OrtTensorTypeAndShapeInfo **out), (type, out))
ORT_CALL(60, OrtStatus *, GetTensorElementType, (const OrtTensorTypeAndShapeInfo *, int *),
         (ort_table api, const OrtTensorTypeAndShapeInfo *info, int *out), (info, out))
ORT_CALL(61, OrtStatus *, GetDimensionsCount, (const OrtTensorTypeAndShapeInfo *, size_t *),
         (ort_table api, const OrtTensorTypeAndShapeInfo *info, size_t *out), (info, out))
ORT_CALL(62, OrtStatus *, GetDimensions, (const OrtTensorTypeAndShapeInfo *, int64_t *, size_t),
         (ort_table api, const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t rank), (info, out, rank))
ORT_CALL(63, OrtStatus *, GetSymbolicDimensions, (const OrtTensorTypeAndShapeInfo *, const char **, size_t),
         (ort_table api, const OrtTensorTypeAndShapeInfo *info, const char **out, size_t rank), (info, out, rank))
ORT_CALL(64, OrtStatus *, GetTensorShapeElementCount, (const OrtTensorTypeAndShapeInfo *, size_t *),
         (ort_table api, const OrtTensorTypeAndShapeInfo *info, size_t *out), (info, out))
ORT_CALL(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *, OrtTensorTypeAndShapeInfo **),
         (ort_table api, const OrtValue *value, OrtTensorTypeAndShapeInfo **out), (value, out))
ORT_CALL(68, OrtStatus *, CreateMemoryInfo, (const char *, int, int, int, OrtMemoryInfo **),
         (ort_table api, const char *name, int allocator_type, int ordinal, int memory_type, OrtMemoryInfo **out),
         (name, allocator_type, ordinal, memory_type, out))
ORT_CALL(69, OrtStatus *, CreateCpuMemoryInfo, (int, int, OrtMemoryInfo **),
         (ort_table api, int allocator_type, int memory_type, OrtMemoryInfo **out), (allocator_type, memory_type, out))
ORT_CALL(75, OrtStatus *, AllocatorAlloc, (OrtAllocator *, size_t, void **),
         (ort_table api, OrtAllocator *allocator, size_t size, void **out), (allocator, size, out))
ORT_CALL(76, OrtStatus *, AllocatorFree, (OrtAllocator *, void *), (ort_table api, OrtAllocator *allocator, void *data),
         (allocator, data))
ORT_CALL(78, OrtStatus *, GetAllocatorWithDefaultOptions, (OrtAllocator **), (ort_table api, OrtAllocator **out), (out))
ORT_CALL(93, void, ReleaseStatus, (OrtStatus *), (ort_table api, OrtStatus *status), (status))
ORT_CALL(94, void, ReleaseMemoryInfo, (OrtMemoryInfo *), (ort_table api, OrtMemoryInfo *memory), (memory))
ORT_CALL(95, void, ReleaseSession, (OrtSession *), (ort_table api, OrtSession *session), (session))
ORT_CALL(96, void, ReleaseValue, (OrtValue *), (ort_table api, OrtValue *value), (value))
ORT_CALL(97, void, ReleaseRunOptions, (OrtRunOptions *), (ort_table api, OrtRunOptions *options), (options))
ORT_CALL(98, void, ReleaseTypeInfo, (OrtTypeInfo *), (ort_table api, OrtTypeInfo *type), (type))
ORT_CALL(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorTypeAndShapeInfo *),
         (ort_table api, OrtTensorTypeAndShapeInfo *info), (info))
ORT_CALL(100, void, ReleaseSessionOptions, (OrtSessionOptions *), (ort_table api, OrtSessionOptions *options),
         (options))
ORT_CALL(119, OrtStatus *, CreateEnvWithGlobalThreadPools,
         (int, const char *, const OrtThreadingOptions *, OrtEnv **),
         (ort_table api, int severity, const char *name, const OrtThreadingOptions *options, OrtEnv **out),
         (severity, name, options, out))
ORT_CALL(120, OrtStatus *, DisablePerSessionThreads, (OrtSessionOptions *),
         (ort_table api, OrtSessionOptions *options), (options))
ORT_CALL(121, OrtStatus *, CreateThreadingOptions, (OrtThreadingOptions **), (ort_table api, OrtThreadingOptions **out),
         (out))
ORT_CALL(122, void, ReleaseThreadingOptions, (OrtThreadingOptions *), (ort_table api, OrtThreadingOptions *options),
         (options))
ORT_CALL(125, OrtStatus *, GetAvailableProviders, (char ***, int *), (ort_table api, char ***out, int *count),
         (out, count))
ORT_CALL(126, OrtStatus *, ReleaseAvailableProviders, (char **, int), (ort_table api, char **providers, int count),
         (providers, count))
ORT_CALL(130, OrtStatus *, AddSessionConfigEntry, (OrtSessionOptions *, const char *, const char *),
         (ort_table api, OrtSessionOptions *options, const char *key, const char *value), (options, key, value))
ORT_CALL(131, OrtStatus *, CreateAllocator, (const OrtSession *, const OrtMemoryInfo *, OrtAllocator **),
         (ort_table api, const OrtSession *session, const OrtMemoryInfo *memory, OrtAllocator **out),
         (session, memory, out))
ORT_CALL(132, void, ReleaseAllocator, (OrtAllocator *), (ort_table api, OrtAllocator *allocator), (allocator))
ORT_CALL(147, OrtStatus *, SetGlobalIntraOpNumThreads, (OrtThreadingOptions *, int),
         (ort_table api, OrtThreadingOptions *options, int threads), (options, threads))
ORT_CALL(148, OrtStatus *, SetGlobalInterOpNumThreads, (OrtThreadingOptions *, int),
         (ort_table api, OrtThreadingOptions *options, int threads), (options, threads))
ORT_CALL(149, OrtStatus *, SetGlobalSpinControl, (OrtThreadingOptions *, int),
         (ort_table api, OrtThreadingOptions *options, int spin), (options, spin))
ORT_CALL(165, OrtStatus *, AddRunConfigEntry, (OrtRunOptions *, const char *, const char *),
         (ort_table api, OrtRunOptions *options, const char *key, const char *value), (options, key, value))
ORT_CALL(170, OrtStatus *, SessionOptionsAppendExecutionProvider_TensorRT_V2,
         (OrtSessionOptions *, const OrtTensorRTProviderOptionsV2 *),
         (ort_table api, OrtSessionOptions *options, const OrtTensorRTProviderOptionsV2 *provider), (options, provider))
ORT_CALL(171, OrtStatus *, CreateTensorRTProviderOptions, (OrtTensorRTProviderOptionsV2 **),
         (ort_table api, OrtTensorRTProviderOptionsV2 **out), (out))
ORT_CALL(172, OrtStatus *, UpdateTensorRTProviderOptions,
         (OrtTensorRTProviderOptionsV2 *, const char *const *, const char *const *, size_t),
         (ort_table api, OrtTensorRTProviderOptionsV2 *provider, const char *const *keys, const char *const *values,
          size_t count),
         (provider, keys, values, count))
ORT_CALL(174, void, ReleaseTensorRTProviderOptions, (OrtTensorRTProviderOptionsV2 *),
         (ort_table api, OrtTensorRTProviderOptionsV2 *provider), (provider))
ORT_CALL(204, OrtStatus *, SessionOptionsAppendExecutionProvider_CUDA_V2,
         (OrtSessionOptions *, const OrtCUDAProviderOptionsV2 *),
         (ort_table api, OrtSessionOptions *options, const OrtCUDAProviderOptionsV2 *provider), (options, provider))
ORT_CALL(205, OrtStatus *, CreateCUDAProviderOptions, (OrtCUDAProviderOptionsV2 **),
         (ort_table api, OrtCUDAProviderOptionsV2 **out), (out))
ORT_CALL(206, OrtStatus *, UpdateCUDAProviderOptions,
         (OrtCUDAProviderOptionsV2 *, const char *const *, const char *const *, size_t),
         (ort_table api, OrtCUDAProviderOptionsV2 *provider, const char *const *keys, const char *const *values,
          size_t count),
         (provider, keys, values, count))
ORT_CALL(208, void, ReleaseCUDAProviderOptions, (OrtCUDAProviderOptionsV2 *),
         (ort_table api, OrtCUDAProviderOptionsV2 *provider), (provider))
ORT_CALL(252, OrtStatus *, GetResizedStringTensorElementBuffer, (OrtValue *, size_t, size_t, char **),
         (ort_table api, OrtValue *value, size_t index, size_t size, char **out), (value, index, size, out))

#undef ORT_CALL
#endif
