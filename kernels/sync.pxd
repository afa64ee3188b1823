"""Declarations of sync.h and of the POSIX threads calls that the kernels use."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "sync.h" nogil:
    ctypedef struct read_sections:
        pass

    int64_t monotonic_ns() noexcept
    int64_t epoch_ms() noexcept
    int64_t deadline_after(int64_t microseconds) noexcept
    int section_enter(read_sections* sections) noexcept
    void section_leave(read_sections* sections, int phase) noexcept
    void sections_wait(read_sections* sections) noexcept
    void* pointer_load(void** place) noexcept
    void pointer_store(void** place, void* value) noexcept
    int int_load(int* place) noexcept
    void int_store(int* place, int value) noexcept
    int int_add(int* place, int value) noexcept
    int int_exchange(int* place, int value) noexcept
    void* list_push(void** last, void* element) noexcept
    void* list_take(void** last) noexcept
    int64_t counter_add(int64_t* place, int64_t value) noexcept
    int64_t counter_load(int64_t* place) noexcept
    void counter_raise(int64_t* place, int64_t value) noexcept
    int bit_length(uint64_t value) noexcept
    bint multiply_overflows(int64_t a, int64_t b, int64_t* product) noexcept
    bint add_overflows(int64_t a, int64_t b, int64_t* sum) noexcept


cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    ctypedef unsigned long pthread_t
    int CLOCK_MONOTONIC

    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) noexcept
    int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept
    int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept
    int pthread_condattr_init(pthread_condattr_t* attributes) noexcept
    int pthread_condattr_setclock(pthread_condattr_t* attributes, int clock) noexcept
    int pthread_condattr_destroy(pthread_condattr_t* attributes) noexcept
    int pthread_cond_init(pthread_cond_t* condition, pthread_condattr_t* attributes) noexcept
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) noexcept
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* until) noexcept
    int pthread_cond_signal(pthread_cond_t* condition) noexcept
    int pthread_cond_broadcast(pthread_cond_t* condition) noexcept
    int pthread_cond_destroy(pthread_cond_t* condition) noexcept
    int pthread_create(pthread_t* thread, void* attributes, void* (*start)(void*) noexcept nogil, void* argument) noexcept
    int pthread_join(pthread_t thread, void** result) noexcept
    int pthread_setname_np(pthread_t thread, const char* name) noexcept
