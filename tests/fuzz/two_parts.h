/* A fuzz target's input in two parts: one byte n, n bytes of the first, the rest is the second.  Each is in memory of exactly its size, so that a
 * read past its end is seen. */
#ifndef ATSK_TESTS_TWO_PARTS_H
#define ATSK_TESTS_TWO_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct two_parts {
  char *first, *second; /* 8-aligned */
  size_t first_len, second_len;
};

/* False: there is no input; else two_parts_free() is due. */
static inline bool
two_parts_take(const uint8_t *data, size_t size, struct two_parts *out)
{
  if (size == 0) {
    return false;
  }
  out->first_len  = data[0] < size ? data[0] : 0;
  out->second_len = size - 1 - out->first_len;
  out->first      = malloc(out->first_len > 0 ? out->first_len : 1);
  out->second     = malloc(out->second_len > 0 ? out->second_len : 1);
  memcpy(out->first, data + 1, out->first_len);
  memcpy(out->second, data + 1 + out->first_len, out->second_len);
  return true;
}

static inline void
two_parts_free(struct two_parts *parts)
{
  free(parts->first);
  free(parts->second);
}

#endif
