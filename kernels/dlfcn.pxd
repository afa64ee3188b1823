"""Declarations of the dynamic linker's calls by which libraries are opened that the kernels are not linked with."""


cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char* path, int flags) noexcept
    void* dlsym(void* library, const char* name) noexcept
    const char* dlerror() noexcept
    int RTLD_NOW
    int RTLD_LOCAL
