/* Stands in for CUDA's runtime and driver where there is no GPU: the "device memory" of its two GPUs is POSIX shared
 * memory of this host, which other processes map by the handle as they would map a GPU's. Only the calls that
 * kernels/cuda_runtime.pyx makes are here, and those by which a test allocates as a client does.
 *
 * Stricter than a GPU where that shows mistakes: a copy is made when its stream is waited for and not before, only
 * between places of which one at least is device memory, and memory that is closed too often is an error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NO_MEMORY = 2, NO_DEVICE = 101, INVALID_HANDLE = 400, GPUS = 2 };
enum { MAX_BLOCKS = 4096, MAX_COPIES = 256, HANDLE_BYTES = 64, NAME_BYTES = 40 };

typedef struct { char reserved[HANDLE_BYTES]; } cudaIpcMemHandle_t;

struct block {                  /* memory that this process has allocated or opened */
    char name[NAME_BYTES];      /* of the object, which is the handle; "" for none */
    char *base;
    size_t size;
    int gpu, opened, is_owned;
};

struct copy { void *target; const void *source; size_t size; void *stream; pthread_t thread; };

static struct block blocks[MAX_BLOCKS];
static struct copy copies[MAX_COPIES];
static int n_copies, n_copied, made;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int current_gpu;

static struct block *find_block(const void *place)
{
    for (struct block *block = blocks; block < blocks + MAX_BLOCKS; block++)
        if (block->base && (const char *)place >= block->base && (const char *)place < block->base + block->size)
            return block;
    return NULL;
}

static struct block *find_name(const char *name)
{
    for (struct block *block = blocks; block < blocks + MAX_BLOCKS; block++)
        if (block->base && strcmp(block->name, name) == 0)
            return block;
    return NULL;
}

static struct block *map_block(const char *name, size_t size, int flags)
{
    struct block *block = blocks;
    struct stat found;
    while (block->base)
        if (++block == blocks + MAX_BLOCKS)
            return NULL;
    int descriptor = shm_open(name, O_RDWR | flags, 0600);
    if (descriptor < 0)
        return NULL;
    if ((size && ftruncate(descriptor, (off_t)size)) || fstat(descriptor, &found) || !found.st_size) {
        close(descriptor);
        return NULL;
    }
    void *base = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (base == MAP_FAILED)
        return NULL;
    *block = (struct block){.base = base, .size = (size_t)found.st_size};
    snprintf(block->name, NAME_BYTES, "%s", name);
    return block;
}

static void unmap_block(struct block *block)
{
    munmap(block->base, block->size);
    block->base = NULL;
}

const char *cudaGetErrorString(int error)
{
    return error == NO_DEVICE ? "no CUDA-capable device is detected"
           : error == INVALID_HANDLE ? "invalid resource handle"
           : error == NO_MEMORY ? "out of memory" : error ? "invalid argument" : "no error";
}

int cudaGetDeviceCount(int *count)
{
    *count = GPUS;
    return SUCCESS;
}

int cudaSetDevice(int number)
{
    if (number < 0 || number >= GPUS)
        return NO_DEVICE;
    current_gpu = number;
    return SUCCESS;
}

int cudaMalloc(void **place, size_t size)
{
    char name[NAME_BYTES];
    pthread_mutex_lock(&lock);
    snprintf(name, NAME_BYTES, "/sluice-gpu%d-%d-%d", current_gpu, (int)getpid(), made++);
    struct block *block = map_block(name, size, O_CREAT | O_EXCL);
    if (block) {
        block->gpu = current_gpu;
        block->is_owned = 1;
        *place = block->base;
    }
    pthread_mutex_unlock(&lock);
    return block ? SUCCESS : NO_MEMORY;
}

int cudaFree(void *place)
{
    pthread_mutex_lock(&lock);
    struct block *block = find_block(place);
    int is_owned = block && block->is_owned;
    if (is_owned) {
        shm_unlink(block->name);
        unmap_block(block);
    }
    pthread_mutex_unlock(&lock);
    return is_owned ? SUCCESS : INVALID_VALUE;
}

int cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *place)
{
    struct block *block = find_block(place);
    if (!block)
        return INVALID_VALUE;
    memset(handle, 0, sizeof *handle);
    snprintf(handle->reserved, NAME_BYTES, "%s", block->name);
    return SUCCESS;
}

int cudaIpcOpenMemHandle(void **place, cudaIpcMemHandle_t handle, unsigned int flags)
{
    char gpu_part[16];
    int error = INVALID_HANDLE;
    snprintf(gpu_part, sizeof gpu_part, "/sluice-gpu%d-", current_gpu);
    if (flags != 1 || memchr(handle.reserved, 0, NAME_BYTES) == NULL || strncmp(handle.reserved, gpu_part, strlen(gpu_part)))
        return error;
    pthread_mutex_lock(&lock);
    struct block *block = find_name(handle.reserved);
    if (!block)
        block = map_block(handle.reserved, 0, 0);
    if (block) {
        block->gpu = current_gpu;
        block->opened++;
        *place = block->base;
        error = SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int cudaIpcCloseMemHandle(void *place)
{
    int error = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct block *block = find_block(place);
    if (block && block->base == place && block->opened > 0 && block->gpu == current_gpu) {
        error = SUCCESS;
        if (--block->opened == 0 && !block->is_owned)
            unmap_block(block);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* How often memory is open in this process, of a handle; for tests. */
int host_cuda_opened(cudaIpcMemHandle_t handle)
{
    pthread_mutex_lock(&lock);
    struct block *block = find_name(handle.reserved);
    int opened = block ? block->opened : 0;
    pthread_mutex_unlock(&lock);
    return opened;
}

int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t place)
{
    struct block *block = find_block((void *)(uintptr_t)place);
    if (!block)
        return INVALID_VALUE;
    *base = (uint64_t)(uintptr_t)block->base;
    *size = block->size;
    return SUCCESS;
}

int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *stream)
{
    int error = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct block *to = find_block(target), *from = find_block(source);
    int fits = (!to || (char *)target + size <= to->base + to->size)
               && (!from || (const char *)source + size <= from->base + from->size);
    if (kind == 4 && (to || from) && fits && n_copies < MAX_COPIES) {
        copies[n_copies++] = (struct copy){target, source, size, stream, pthread_self()};
        error = SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* Makes the copies of a stream in their order; stream 2 is each thread's own. */
int cudaStreamSynchronize(void *stream)
{
    int left = 0;
    pthread_mutex_lock(&lock);
    for (int index = 0; index < n_copies; index++) {
        struct copy *copy = &copies[index];
        if (copy->stream == stream && (stream != (void *)2 || pthread_equal(copy->thread, pthread_self())))
            n_copied++, memcpy(copy->target, copy->source, copy->size);
        else
            copies[left++] = *copy;
    }
    n_copies = left;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* How many copies this process has made; for tests. */
int host_cuda_copies(void)
{
    pthread_mutex_lock(&lock);
    int copied = n_copied;
    pthread_mutex_unlock(&lock);
    return copied;
}

int cudaStreamCreateWithFlags(void **stream, unsigned int flags)
{
    *stream = flags == 1 ? malloc(1) : NULL;
    return *stream ? SUCCESS : INVALID_VALUE;
}

int cudaStreamDestroy(void *stream)
{
    free(stream);
    return SUCCESS;
}
