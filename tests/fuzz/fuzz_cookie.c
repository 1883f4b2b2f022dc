/* Bytes as a Cookie field: what is found lies inside it, and is a pair's value of that name; and as a tag's text.
 * Input: one byte n, n bytes of name, the rest is the field. */
#include "endpoints/affinity.h"
#include "replay.h"

#include <stdlib.h>
#include <string.h>

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  size_t name_len = size > 0 && data[0] < size ? data[0] : 0;
  if (size == 0) {
    return 0;
  }
  size_t len  = size - 1 - name_len;
  char *name  = malloc(name_len > 0 ? name_len : 1); /* exactly as long: a read past the end is seen */
  char *field = malloc(len > 0 ? len : 1);
  memcpy(name, data + 1, name_len);
  memcpy(field, data + 1 + name_len, len);
  struct atsk_str value = {NULL, 0};
  if (atsk_cookie_find((struct atsk_str){field, len}, (struct atsk_str){name, name_len}, &value)) {
    FUZZ_REQUIRE(name_len > 0 && len > name_len);
    FUZZ_REQUIRE(value.ptr > field && value.ptr <= field + len && value.len <= (size_t)(field + len - value.ptr));
    FUZZ_REQUIRE(value.len == 0 || memchr(value.ptr, ';', value.len) == NULL);
    FUZZ_REQUIRE(value.len == 0 || (value.ptr[0] != ' ' && value.ptr[0] != '\t') || value.ptr[-1] == '"');
    uint64_t tag = atsk_tag_read(value);
    if (tag != 0) {
      char text[ATSK_TAG_TEXT];
      atsk_tag_write(tag, text);
      FUZZ_REQUIRE(value.len == sizeof text && memcmp(value.ptr, text, sizeof text) == 0);
    }
  }
  free(name);
  free(field);
  return 0;
}
