/* Something to find: five bytes, each behind a branch of its own that one in sixteen passes. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

void read_input(const uint8_t *data, size_t size)
{
    if (size < 5 || data[0] >> 4 != 0xB)
        return;
    if (data[1] >> 4 != 0x0)
        return;
    if (data[2] >> 4 != 0x0)
        return;
    if (data[3] >> 4 != 0xC)
        return;
    if (data[4] >> 4 == 0xA)
        abort();
    if (data[4] >> 4 == 0xB)
        pause();
}
