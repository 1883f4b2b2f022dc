/* SipHash-1-3 (Aumasson and Bernstein), a keyed hash of short strings: who does not know the key cannot make labels collide, which
 * a tenant who may choose host names would otherwise do.  1-3 is the variant that hash tables use (Rust, CPython 3.11).  Pure. */
#ifndef ATSK_SIPHASH_H
#define ATSK_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct atsk_siphash_key {
  uint64_t k0, k1;
};

static inline uint64_t
atsk_siphash_rotate(uint64_t x, unsigned n)
{
  return x << n | x >> (64u - n);
}

static inline void
atsk_siphash_round(uint64_t v[4])
{
  v[0] += v[1];
  v[2] += v[3];
  v[1] = atsk_siphash_rotate(v[1], 13) ^ v[0];
  v[3] = atsk_siphash_rotate(v[3], 16) ^ v[2];
  v[0] = atsk_siphash_rotate(v[0], 32);
  v[2] += v[1];
  v[0] += v[3];
  v[1] = atsk_siphash_rotate(v[1], 17) ^ v[2];
  v[3] = atsk_siphash_rotate(v[3], 21) ^ v[0];
  v[2] = atsk_siphash_rotate(v[2], 32);
}

/* The hash of bytes[0..len); little-endian machines only (atsk_format.h refuses others). */
static inline uint64_t
atsk_siphash(const struct atsk_siphash_key *key, const char *bytes, size_t len)
{
  uint64_t v[4] = {key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
                   key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
  uint64_t word = 0;
  size_t left   = len;
  for (; left >= 8; left -= 8, bytes += 8) {
    memcpy(&word, bytes, 8);
    v[3] ^= word;
    atsk_siphash_round(v);
    v[0] ^= word;
  }
  word = (uint64_t)len << 56;
  for (size_t i = 0; i < left; i++) { /* a memcpy of unknown length would be a call */
    word |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
  }
  v[3] ^= word;
  atsk_siphash_round(v);
  v[0] ^= word;
  v[2] ^= 0xff;
  atsk_siphash_round(v);
  atsk_siphash_round(v);
  atsk_siphash_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
