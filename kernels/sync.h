/* What Cython cannot say well: atomics with an order, the monotonic clock, and read sections that never block.
 *
 * A read section protects whatever a thread found through an atomically published pointer: a writer first publishes
 * the new pointer, then calls sections_wait, and only then frees what the old one led to. Readers pay two atomic adds on
 * a cache line of their own. Two phases keep a writer from being starved by readers that keep arriving.
 */
#ifndef SLUICE_SYNC_H
#define SLUICE_SYNC_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#define SECTION_SLOTS 16

typedef struct {
    _Alignas(64) _Atomic int64_t active;
} section_slot;

typedef struct {
    _Atomic int phase;
    section_slot slots[2][SECTION_SLOTS];
} read_sections;

static inline int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Since the epoch, to a few milliseconds: a tenth of what the precise clock costs. */
static inline int64_t epoch_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Threads spread over the slots in the order in which they first ask. */
static inline unsigned thread_slot(void) {
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine;
    if (mine == 0) mine = atomic_fetch_add(&threads, 1) % SECTION_SLOTS + 1;
    return mine - 1;
}

/* Returns the phase to hand to section_leave. */
static inline int section_enter(read_sections *sections) {
    int phase = atomic_load(&sections->phase);
    atomic_fetch_add(&sections->slots[phase][thread_slot()].active, 1);
    return phase;
}

static inline void section_leave(read_sections *sections, int phase) {
    atomic_fetch_sub(&sections->slots[phase][thread_slot()].active, 1);
}

/* Returns once every section that was open at the call has been left. One writer at a time. A reader may have read the
 * phase just before a flip and counted itself just after, hence both phases are waited for. */
static inline void sections_wait(read_sections *sections) {
    for (int round = 0; round < 2; round++) {
        int phase = atomic_fetch_xor(&sections->phase, 1);
        for (int slot = 0; slot < SECTION_SLOTS; slot++)
            while (atomic_load(&sections->slots[phase][slot].active) != 0) sched_yield();
    }
}

static inline void *pointer_load(void **place) { return __atomic_load_n(place, __ATOMIC_SEQ_CST); }
static inline void pointer_store(void **place, void *value) { __atomic_store_n(place, value, __ATOMIC_SEQ_CST); }
/* The list that `last` heads. Every element begins with its link, to the one pushed before it; what a pusher wrote before
 * is seen by who takes the list. Sequentially consistent, so that a pusher may ask afterwards whether the taker sleeps,
 * and a taker that is about to sleep may look once more. Pushing returns the element before, NULL in an empty list. */
static inline void *list_push(void **last, void *element) {
    void *before = __atomic_load_n(last, __ATOMIC_RELAXED);
    do {
        *(void **) element = before;
    } while (!__atomic_compare_exchange_n(last, &before, element, 1, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return before;
}
/* Takes all, the oldest first: the links now lead to the one that was pushed next. */
static inline void *list_take(void **last) {
    void *element = __atomic_exchange_n(last, NULL, __ATOMIC_SEQ_CST), *first = NULL;
    while (element != NULL) {
        void *before = *(void **) element;
        *(void **) element = first;
        first = element;
        element = before;
    }
    return first;
}
static inline int int_load(int *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
static inline void int_store(int *place, int value) { __atomic_store_n(place, value, __ATOMIC_RELEASE); }
static inline int int_add(int *place, int value) { return __atomic_add_fetch(place, value, __ATOMIC_ACQ_REL); }
static inline int int_exchange(int *place, int value) { return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST); }
static inline int64_t counter_add(int64_t *place, int64_t value) {
    return __atomic_add_fetch(place, value, __ATOMIC_ACQ_REL);
}
static inline int64_t counter_load(int64_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }
/* For a counter that one thread writes and others read: no more than an addition. */
static inline void counter_raise(int64_t *place, int64_t value) {
    __atomic_store_n(place, *place + value, __ATOMIC_RELAXED);
}
/* How many bits a number needs; 0 for 0. */
static inline int bit_length(uint64_t value) { return value == 0 ? 0 : 64 - __builtin_clzll(value); }

/* A monotonic time that lies `microseconds` ahead; 0, which stands for never, when that is beyond the clock. */
static inline int64_t deadline_after(int64_t microseconds) {
    int64_t deadline;
    if (__builtin_mul_overflow(microseconds, 1000, &deadline)) return 0;
    return __builtin_add_overflow(monotonic_ns(), deadline, &deadline) ? 0 : deadline;
}

/* Both return 1 when the result does not fit. */
static inline int multiply_overflows(int64_t a, int64_t b, int64_t *product) {
    return __builtin_mul_overflow(a, b, product);
}
static inline int add_overflows(int64_t a, int64_t b, int64_t *sum) { return __builtin_add_overflow(a, b, sum); }

#endif
