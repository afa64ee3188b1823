#include "histogram.h"

#include <math.h>

static int find_bucket(uint64_t duration_ns)
{
    if (duration_ns < HISTOGRAM_SLOTS)
        return (int)duration_ns;
    if (duration_ns >> HISTOGRAM_BITS)
        return HISTOGRAM_BUCKETS - 1;
    int shift = 63 - HISTOGRAM_SHIFT - __builtin_clzll(duration_ns);
    return shift * HISTOGRAM_SLOTS + (int)(duration_ns >> shift);
}

/* The longest duration of a bucket. */
static uint64_t bucket_end(int bucket)
{
    if (bucket < HISTOGRAM_SLOTS)
        return (uint64_t)bucket;
    int shift = bucket / HISTOGRAM_SLOTS - 1;
    uint64_t head = (uint64_t)(bucket % HISTOGRAM_SLOTS + HISTOGRAM_SLOTS);
    return ((head + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, int64_t duration_ns)
{
    uint64_t duration = duration_ns > 0 ? (uint64_t)duration_ns : 0;
    if (histogram->count == 0 || duration < histogram->min_ns)
        histogram->min_ns = duration;
    if (duration > histogram->max_ns)
        histogram->max_ns = duration;
    histogram->count++;
    histogram->sum_ns += duration;
    histogram->buckets[find_bucket(duration)]++;
}

uint64_t histogram_percentile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)ceil(share * (double)histogram->count), seen = 0;
    if (histogram->count == 0)
        return 0;
    for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= wanted && seen > 0)
            return bucket_end(bucket) < histogram->max_ns ? bucket_end(bucket) : histogram->max_ns;
    }
    return histogram->max_ns;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count ? (double)histogram->sum_ns / (double)histogram->count : 0;
}
