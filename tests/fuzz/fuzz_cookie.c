/* Bytes as a Cookie field: what is found lies inside it, and is a pair's value of that name; and as a tag's text.
 * Input: name and field, as two_parts.h has them. */
#include "endpoints/affinity.h"
#include "replay.h"
#include "two_parts.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct two_parts parts;
  if (!two_parts_take(data, size, &parts)) {
    return 0;
  }
  const struct atsk_str name = {parts.first, parts.first_len}, field = {parts.second, parts.second_len};
  struct atsk_str value = {NULL, 0};
  if (atsk_cookie_find(field, name, &value)) {
    const char *end = field.ptr + field.len;
    FUZZ_REQUIRE(name.len > 0 && field.len > name.len);
    FUZZ_REQUIRE(value.ptr > field.ptr && value.ptr <= end && value.len <= (size_t)(end - value.ptr));
    FUZZ_REQUIRE(value.len == 0 || memchr(value.ptr, ';', value.len) == NULL);
    FUZZ_REQUIRE(value.len == 0 || (value.ptr[0] != ' ' && value.ptr[0] != '\t') || value.ptr[-1] == '"');
    uint64_t tag = atsk_tag_read(value);
    if (tag != 0) {
      char text[ATSK_TAG_TEXT];
      atsk_tag_write(tag, text);
      FUZZ_REQUIRE(value.len == sizeof text && memcmp(value.ptr, text, sizeof text) == 0);
    }
  }
  two_parts_free(&parts);
  return 0;
}
