/* See affinity.h.  The key is written once, before any thread but the writer's looks at it, and read by the writer's alone. */
#include "endpoints/affinity.h"

#include "base/siphash.h"

#include <sys/random.h>

static struct atsk_siphash_key tag_key;
static bool has_key;

void
atsk_affinity_key_set(const uint8_t key[ATSK_AFFINITY_KEY])
{
  memcpy(&tag_key, key, sizeof tag_key);
  has_key = true;
}

/* SipHash-2-4, the cautious variant: its values are handed out to clients, as a hash table's never are. */
static uint64_t
siphash24(const struct atsk_siphash_key *key, const uint8_t *bytes, size_t len)
{
  uint64_t v[4] = {key->k0 ^ UINT64_C(0x736f6d6570736575), key->k1 ^ UINT64_C(0x646f72616e646f6d),
                   key->k0 ^ UINT64_C(0x6c7967656e657261), key->k1 ^ UINT64_C(0x7465646279746573)};
  for (size_t at = 0; at <= len; at += 8) { /* the last word, of what is left, has the length on top */
    size_t left   = len - at < 8 ? len - at : 8;
    uint64_t word = 0;
    memcpy(&word, bytes + at, left);
    if (left < 8) {
      word |= (uint64_t)len << 56;
    }
    v[3] ^= word;
    atsk_siphash_round(v);
    atsk_siphash_round(v);
    v[0] ^= word;
  }
  v[2] ^= 0xff;
  for (unsigned i = 0; i < 4; i++) {
    atsk_siphash_round(v);
  }
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t
atsk_affinity_tag(const uint8_t addr[16], uint8_t family, uint16_t port, struct atsk_str name)
{
  uint8_t bytes[19 + ATSK_HOST_MAX];
  if (!has_key) {
    has_key = getrandom(&tag_key, sizeof tag_key, GRND_NONBLOCK) == (ssize_t)sizeof tag_key;
  }
  if (!has_key) {
    return 0;
  }
  size_t name_len = name.len < ATSK_HOST_MAX ? name.len : ATSK_HOST_MAX;
  bytes[0]        = family;
  memcpy(bytes + 1, addr, 16);
  bytes[17] = (uint8_t)(port >> 8);
  bytes[18] = (uint8_t)port;
  if (name_len > 0) {
    memcpy(bytes + 19, name.ptr, name_len);
  }
  uint64_t tag = siphash24(&tag_key, bytes, 19 + name_len);
  return tag != 0 ? tag : 1; /* 0 is "none" */
}

void
atsk_tag_write(uint64_t tag, char out[ATSK_TAG_TEXT])
{
  for (unsigned i = ATSK_TAG_TEXT; i-- > 0; tag >>= 4) {
    out[i] = "0123456789abcdef"[tag & 15];
  }
}

uint64_t
atsk_tag_read(struct atsk_str text)
{
  uint64_t tag = 0;
  if (text.len != ATSK_TAG_TEXT) {
    return 0;
  }
  for (unsigned i = 0; i < ATSK_TAG_TEXT; i++) {
    const char c = text.ptr[i];
    if (c >= '0' && c <= '9') {
      tag = tag << 4 | (uint64_t)(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      tag = tag << 4 | (uint64_t)(c - 'a' + 10);
    } else {
      return 0; /* not upper case either: we never wrote it */
    }
  }
  return tag;
}

static struct atsk_str
blanks_trim(struct atsk_str s)
{
  while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
    s.ptr++;
    s.len--;
  }
  while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
    s.len--;
  }
  return s;
}

/* Pairs stand between semicolons, which no value may hold, quoted or not (RFC 6265 section 4.1.1, cookie-octet). */
bool
atsk_cookie_find(struct atsk_str field, struct atsk_str name, struct atsk_str *value)
{
  const char *end = field.ptr + field.len;
  const char *at  = field.ptr;
  if (field.len == 0 || name.len == 0) {
    return false;
  }
  for (;;) {
    const char *stop     = memchr(at, ';', (size_t)(end - at));
    struct atsk_str pair = {at, (size_t)((stop == NULL ? end : stop) - at)};
    const char *equals   = pair.len == 0 ? NULL : memchr(pair.ptr, '=', pair.len);
    if (equals != NULL) {
      struct atsk_str found = blanks_trim((struct atsk_str){pair.ptr, (size_t)(equals - pair.ptr)});
      if (found.len == name.len && memcmp(found.ptr, name.ptr, name.len) == 0) {
        struct atsk_str rest = blanks_trim((struct atsk_str){equals + 1, (size_t)(pair.ptr + pair.len - equals - 1)});
        if (rest.len >= 2 && rest.ptr[0] == '"' && rest.ptr[rest.len - 1] == '"') {
          rest = (struct atsk_str){rest.ptr + 1, rest.len - 2};
        }
        *value = rest;
        return true;
      }
    }
    if (stop == NULL || stop + 1 == end) {
      return false;
    }
    at = stop + 1;
  }
}
