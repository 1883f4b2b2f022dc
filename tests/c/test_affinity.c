/* Tags and cookies: SipHash's own vector, texts there and back, hostile Cookie fields. */
#include "endpoints/affinity.h"
#include "tap.h"

static bool
is_str(struct atsk_str s, const char *expected)
{
  return s.len == strlen(expected) && memcmp(s.ptr, expected, s.len) == 0;
}

static void
tags(void)
{
  uint8_t key[ATSK_AFFINITY_KEY], addr[16];
  char text[ATSK_TAG_TEXT];
  for (unsigned i = 0; i < 16; i++) {
    key[i]  = (uint8_t)i;
    addr[i] = (uint8_t)(i + 1);
  }
  atsk_affinity_key_set(key);
  /* As OpenSSL's SIPHASH (EVP_MAC) has them, with the key 00..0f: family 0, port 0x1112 make our bytes that message. */
  uint64_t tag = atsk_affinity_tag(addr, 0, 0x1112, STR(""));
  CHECK(tag == UINT64_C(0xbb6dc91da77961bd), "SipHash-2-4 of 00..12: %016llx", (unsigned long long)tag);
  CHECK(atsk_affinity_tag(addr, 0, 0x1112, STR("\x13\x14\x15\x16\x17")) == UINT64_C(0xb8ad50c6f649af94),
        "and of 00..17, three whole words");
  CHECK(atsk_affinity_tag(addr, 0, 0x1112, STR("a")) != tag && atsk_affinity_tag(addr, 0, 0x1113, STR("")) != tag &&
          atsk_affinity_tag(addr, 4, 0x1112, STR("")) != tag,
        "family, port and name count");
  bool is_good = true;
  for (unsigned i = 0; i < 10000; i++) {
    uint64_t value = random_next() | 1;
    atsk_tag_write(value, text);
    is_good &= atsk_tag_read((struct atsk_str){text, sizeof text}) == value;
    text[random_below(sizeof text)] = (char)random_below(256); /* no crash, and no text that is not one */
    uint64_t read                   = atsk_tag_read((struct atsk_str){text, sizeof text});
    char again[ATSK_TAG_TEXT];
    atsk_tag_write(read, again);
    is_good &= read == 0 || memcmp(again, text, sizeof text) == 0;
  }
  CHECK(is_good, "texts there and back");
  CHECK(atsk_tag_read(STR("")) == 0 && atsk_tag_read(STR("0123456789abcde")) == 0 && atsk_tag_read(STR("0123456789abcdef0")) == 0 &&
          atsk_tag_read(STR("0123456789ABCDEF")) == 0 && atsk_tag_read(STR("0000000000000000")) == 0 &&
          atsk_tag_read(STR("0x23456789abcdef")) == 0,
        "no tags");
}

static void
found(const char *field, const char *expected)
{
  size_t len = strlen(field);
  char *copy = malloc(len > 0 ? len : 1); /* no NUL behind it */
  memcpy(copy, field, len);
  struct atsk_str value = {NULL, 0};
  bool is_found         = atsk_cookie_find((struct atsk_str){copy, len}, STR("id"), &value);
  CHECK(is_found == (expected != NULL) && (!is_found || is_str(value, expected)), "<%s>", field);
  free(copy);
}

static void
cookies(void)
{
  found("id=1", "1");
  found("a=2; id=1", "1");
  found("a=2;id=1;b=3", "1");
  found("  id = 1 ; b=3", "1");
  found("\tid=\t1\t", "1");
  found("id=first; id=second", "first");
  found("id=\"quoted\"", "quoted");
  found("id=\"half", "\"half");
  found("id=\"", "\"");
  found("id=\"\"", "");
  found("id=", "");
  found("id=a=b", "a=b");
  found("id=\"a;b\"", "\"a"); /* no value holds a semicolon, quoted or not */
  found("x=\"; id=2\"", "2\"");
  found("id", NULL);
  found("id;id", NULL);
  found("", NULL);
  found(";", NULL);
  found(";;;;", NULL);
  found(";;;id=7", "7");
  found("=1", NULL);
  found("=id=1", NULL);
  found("ID=1", NULL);
  found("xid=1; idx=2; i=3", NULL);
  found("i d=1", NULL);
  found("\"id\"=1", NULL);
  struct atsk_str value;
  CHECK(!atsk_cookie_find((struct atsk_str){NULL, 0}, STR("id"), &value), "no field");
  CHECK(!atsk_cookie_find(STR("=1"), STR(""), &value), "no name");
  CHECK(atsk_cookie_find(STR("a=\0;id=\0x"), STR("id"), &value) && value.len == 2, "a NUL is a byte");
}

int
main(void)
{
  random_seed();
  tags();
  cookies();
  return tap_end();
}
