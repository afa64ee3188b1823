/* Counts the edges between basic blocks that code built with gcc's -fsanitize-coverage=trace-pc passes.

   C, because it runs in every basic block of what is fuzzed. It is preloaded, so that all kernels share one map. A block
   is known by its file's name and its place in it: the same in every process, wherever the file was loaded.
*/

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE_BITS = 12, CACHED_PAGES = 4096, KEY_BITS = 28 };

static uint8_t *hits; /* mapped to the end of the process; NULL until coverage_begin */
static uint32_t mask;
/* A page's number << KEY_BITS | its key, written and read whole; 0 is empty. */
static uint64_t pages[CACHED_PAGES];
static __thread uint32_t previous __attribute__((tls_model("initial-exec")));

/* Count into a file's memory from now on; its size is a power of two. 0, or -1 when it cannot be mapped. */
__attribute__((visibility("default"))) int coverage_begin(const char *path, uint32_t size)
{
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (map == MAP_FAILED)
        return -1;
    mask = size - 1;
    __atomic_store_n(&hits, map, __ATOMIC_RELEASE);
    return 0;
}

static uint32_t mix(uint32_t value)
{
    value = (value ^ value >> 16) * 0x7FEB352Du;
    value = (value ^ value >> 15) * 0x846CA68Bu;
    return value ^ value >> 16;
}

/* The key of a page: of the name of the file it was loaded from, and of how far into the file it lies. */
static uint32_t find_key(uintptr_t pc)
{
    Dl_info found;
    uint32_t key = 0;
    if (dladdr((void *)pc, &found) == 0 || found.dli_fname == NULL)
        return 0;
    const char *name = strrchr(found.dli_fname, '/');
    for (name = name == NULL ? found.dli_fname : name + 1; *name != 0; name++)
        key = mix(key ^ (uint8_t)*name);
    return mix(key ^ (uint32_t)((pc - (uintptr_t)found.dli_fbase) >> PAGE_BITS)) & ((1u << KEY_BITS) - 1);
}

static uint32_t key_of(uintptr_t pc)
{
    uint64_t number = pc >> PAGE_BITS;
    uint64_t *cached = &pages[number % CACHED_PAGES];
    uint64_t entry = __atomic_load_n(cached, __ATOMIC_RELAXED);
    if (entry >> KEY_BITS != number) {
        entry = number << KEY_BITS | find_key(pc);
        __atomic_store_n(cached, entry, __ATOMIC_RELAXED);
    }
    return (uint32_t)entry & ((1u << KEY_BITS) - 1);
}

/* Called by the compiler's order at the start of every basic block. Threads may lose each other's counts; none matters. */
__attribute__((visibility("default"))) void __sanitizer_cov_trace_pc(void)
{
    uint8_t *map = __atomic_load_n(&hits, __ATOMIC_ACQUIRE);
    if (map == NULL)
        return;
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uint32_t block = mix(key_of(pc) ^ (uint32_t)(pc & ((1u << PAGE_BITS) - 1)) << 20);
    uint8_t *hit = &map[(block ^ previous) & mask];
    if (*hit != UINT8_MAX)
        ++*hit;
    previous = block >> 1;
}
