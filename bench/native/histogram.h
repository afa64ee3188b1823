/* Counts of durations in buckets whose width grows with the duration: a percentile is exact to 1/128 of itself. */
#pragma once

#include <stdint.h>

#define HISTOGRAM_SHIFT 7
#define HISTOGRAM_SLOTS (1 << HISTOGRAM_SHIFT)
/* Longest duration that is told from longer ones: 2^41 ns, or 36 minutes. */
#define HISTOGRAM_BITS 41
#define HISTOGRAM_BUCKETS ((HISTOGRAM_BITS - HISTOGRAM_SHIFT + 1) * HISTOGRAM_SLOTS)

struct histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t min_ns;
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, int64_t duration_ns);

/* The duration that `share` of all do not exceed; 0 when there are none. */
uint64_t histogram_percentile(const struct histogram *histogram, double share);

double histogram_mean(const struct histogram *histogram);
