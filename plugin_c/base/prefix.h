/* Networks: addresses whose first bits are alike. */
#ifndef ATSK_PREFIX_H
#define ATSK_PREFIX_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Are the first `bits` bits of two addresses alike?  Both have as many, in network order. */
static inline bool
atsk_prefix_is(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
  const uint32_t whole = bits / 8u, rest = bits % 8u;
  return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8u - rest) == 0);
}

#endif
