/* Bytes on their way to a socket: appended at one end, written from the other. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* No more is made ready at a time: a large message goes out in several writes and never lies in memory twice. */
#define OUTPUT_LIMIT (256 * 1024)

struct output {
    uint8_t *bytes; /* owned */
    size_t start;   /* of what has not been written */
    size_t end;
    size_t capacity;
};

static inline size_t output_size(const struct output *output)
{
    return output->end - output->start;
}

static inline const uint8_t *output_head(const struct output *output)
{
    return output->bytes + output->start;
}

/* False when memory has run out. */
static inline bool output_append(struct output *output, const void *bytes, size_t size)
{
    if (output->end + size > output->capacity) {
        size_t capacity = output->capacity ? output->capacity : 4096;
        while (capacity < output->end + size)
            capacity *= 2;
        uint8_t *grown = realloc(output->bytes, capacity);
        if (!grown)
            return false;
        output->bytes = grown;
        output->capacity = capacity;
    }
    memcpy(output->bytes + output->end, bytes, size);
    output->end += size;
    return true;
}

/* Forget what has been written. */
static inline void output_consume(struct output *output, size_t size)
{
    output->start += size;
    if (output->start == output->end)
        output->start = output->end = 0;
}

static inline void output_free(struct output *output)
{
    free(output->bytes);
    *output = (struct output){0};
}
