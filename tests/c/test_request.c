/* Host and path normalisation, one line of the contract at a time, then properties over random bytes. */
#include "table/request.h"
#include "tap.h"

static void
host_is(const char *authority, const char *expected, unsigned port)
{
  struct atsk_host host;
  struct atsk_str in         = {authority, strlen(authority)};
  enum atsk_request_fault st = atsk_host_normalise(in, &host);
  CHECK(st == ATSK_REQUEST_FINE && strlen(expected) == host.len && memcmp(host.bytes, expected, host.len) == 0 && host.port == port,
        "host \"%s\" is \"%s\" port %u", authority, expected, port);
}

static void
host_refused(struct atsk_str authority, const char *why)
{
  struct atsk_host host;
  CHECK(atsk_host_normalise(authority, &host) == ATSK_REQUEST_BAD_HOST, "host refused: %s", why);
}

static void
hosts(void)
{
  char long_name[300];
  host_is("a.example", "a.example", 0);
  host_is("A.ExAmPle", "a.example", 0);
  host_is("a.example.", "a.example", 0);
  host_is("a.example:8080", "a.example", 8080);
  host_is("a.example.:8080", "a.example", 8080);
  host_is("a.example:", "a.example", 0);
  host_is("a.example:0", "a.example", 0);
  host_is("a.example:65535", "a.example", 65535);
  host_is("a_b.example", "a_b.example", 0);
  host_is("xn--bcher-kva.example", "xn--bcher-kva.example", 0);
  host_is("127.0.0.1:80", "127.0.0.1", 80);
  host_is("[::1]", "[::1]", 0);
  host_is("[2001:DB8::A]:443", "[2001:db8::a]", 443);
  host_is("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", 0);
  host_is("localhost", "localhost", 0);
  host_refused((struct atsk_str){NULL, 0}, "absent");
  host_refused(STR(""), "empty");
  host_refused(STR("."), "a dot");
  host_refused(STR(".."), "two dots");
  host_refused(STR(":80"), "port alone");
  host_refused(STR("a..b"), "empty label");
  host_refused(STR(".a"), "leading dot");
  host_refused(STR("a.."), "two trailing dots");
  host_refused(STR("a:65536"), "port out of range");
  host_refused(STR("a:99999999999999999999"), "port overflow");
  host_refused(STR("a:8 0"), "space in port");
  host_refused(STR("a:-1"), "negative port");
  host_refused(STR("a b"), "space");
  host_refused(STR("a\0b"), "NUL");
  host_refused(STR("user@a"), "userinfo");
  host_refused(STR("a/b"), "slash");
  host_refused(STR("*.a"), "asterisk");
  host_refused(STR("b\xc3\xbc"
                   "cher.example"),
               "raw UTF-8");
  host_refused(STR("%61.example"), "percent escape");
  host_refused(STR("[::1"), "bracket not closed");
  host_refused(STR("[::1]x"), "bytes after bracket");
  host_refused(STR("[::1]:x"), "bad port after bracket");
  host_refused(STR("[]"), "empty literal");
  host_refused(STR("[1]"), "literal without colons");
  host_refused(STR("[fe80::1%25eth0]"), "zone id");
  host_refused(STR("[v1.a:b:c]"), "IPvFuture");
  host_refused(STR("[0000:0000:0000:0000:0000:ffff:255.255.255.2555]"), "literal too long");
  host_refused(STR("::1"), "IPv6 without brackets");

  memset(long_name, 'a', sizeof long_name);
  host_refused((struct atsk_str){long_name, 64}, "label of 64");
  for (size_t i = 63; i < sizeof long_name; i += 64) {
    long_name[i] = '.';
  }
  struct atsk_host host;
  CHECK(atsk_host_normalise((struct atsk_str){long_name, 253}, &host) == ATSK_REQUEST_FINE && host.len == 253, "253 bytes");
  host_refused((struct atsk_str){long_name, 254}, "254 bytes");
  long_name[253] = '.';
  CHECK(atsk_host_normalise((struct atsk_str){long_name, 254}, &host) == ATSK_REQUEST_FINE && host.len == 253,
        "253 bytes and a dot");
  long_name[254] = '.';
  host_refused((struct atsk_str){long_name, 255}, "253 bytes and two dots");
  memcpy(long_name + 253, ".:65535", 7);
  CHECK(atsk_host_normalise((struct atsk_str){long_name, 260}, &host) == ATSK_REQUEST_FINE && host.port == 65535,
        "the longest authority");
}

static void
path_is(const char *path, const char *expected)
{
  static char room[ATSK_PATH_MAX];
  struct atsk_str out, in = {path, strlen(path)};
  enum atsk_request_fault st = atsk_path_normalise(in, room, &out);
  CHECK(st == ATSK_REQUEST_FINE && out.len == strlen(expected) && memcmp(out.ptr, expected, out.len) == 0, "path \"%s\" is \"%s\"",
        path, expected);
  if (st == ATSK_REQUEST_FINE && strcmp(path, expected) == 0) {
    CHECK(out.ptr == path, "path \"%s\" is borrowed", path);
  }
}

static void
path_refused(struct atsk_str path, enum atsk_request_fault fault, const char *why)
{
  static char room[ATSK_PATH_MAX];
  struct atsk_str out;
  CHECK(atsk_path_normalise(path, room, &out) == fault, "path refused: %s", why);
}

static void
paths(void)
{
  path_is("/", "/");
  path_is("", "/");
  path_is("/a/b", "/a/b");
  path_is("/a/b/", "/a/b/");
  path_is("//", "/");
  path_is("///a//b///", "/a/b/");
  path_is("/./a", "/a");
  path_is("/a/.", "/a/");
  path_is("/a/./", "/a/");
  path_is("/a/..", "/");
  path_is("/a/../", "/");
  path_is("/a/b/..", "/a/");
  path_is("/a/b/../c", "/a/c");
  path_is("/a//../b", "/b");
  path_is("/a/b/../../c", "/c");
  path_is("/a/...", "/a/...");
  path_is("/a/.b", "/a/.b");
  path_is("/a/..b", "/a/..b");
  path_is("/a./b", "/a./b");
  path_is("/.well-known/acme-challenge/x", "/.well-known/acme-challenge/x");
  path_is("/%61%62", "/ab");
  path_is("/%7euser", "/~user");
  path_is("/a%2fb", "/a%2Fb");
  path_is("/a%2Fb", "/a%2Fb");
  path_is("/@scope%2Fpkg", "/@scope%2Fpkg");
  path_is("/a/%2e%2e/b", "/b");
  path_is("/a/%2E./b", "/b");
  path_is("/a/%2e/b", "/a/b");
  path_is("/..%2fb", "/..%2Fb");
  path_is("/a%5cb", "/a%5Cb");
  path_is("/a\\..\\b", "/a\\..\\b");
  path_is("/%c3%a9", "/%C3%A9");
  path_is("/\xc3\xa9", "/%C3%A9"); /* one spelling, raw or escaped */
  path_is("/%c3%a9", "/%C3%A9");
  path_is("/a;b=c/../d", "/d");
  path_is("/%25%32%65", "/%252e"); /* decoded once, not twice */
  path_refused(STR("*"), ATSK_REQUEST_BAD_PATH, "no leading slash");
  path_refused(STR("a/b"), ATSK_REQUEST_BAD_PATH, "relative");
  path_refused(STR("/.."), ATSK_REQUEST_BAD_PATH, "above the root");
  path_refused(STR("/../a"), ATSK_REQUEST_BAD_PATH, "above the root, further on");
  path_refused(STR("/a/../../b"), ATSK_REQUEST_BAD_PATH, "above the root after a segment");
  path_refused(STR("/%2e%2e/a"), ATSK_REQUEST_BAD_PATH, "above the root, escaped");
  path_refused(STR("/a%00"), ATSK_REQUEST_BAD_PATH, "NUL, escaped");
  path_refused(STR("/a\0b"), ATSK_REQUEST_BAD_PATH, "NUL");
  path_refused(STR("/a b"), ATSK_REQUEST_BAD_PATH, "space");
  path_refused(STR("/a\nb"), ATSK_REQUEST_BAD_PATH, "line feed");
  path_refused(STR("/a\x7f"), ATSK_REQUEST_BAD_PATH, "DEL");
  path_refused(STR("/%"), ATSK_REQUEST_BAD_PATH, "escape cut off");
  path_refused(STR("/%a"), ATSK_REQUEST_BAD_PATH, "escape cut off after a digit");
  path_refused(STR("/%zz"), ATSK_REQUEST_BAD_PATH, "escape without hex");
  path_refused(STR("/%%41"), ATSK_REQUEST_BAD_PATH, "escape of a percent sign alone");

  static char wide[ATSK_PATH_MAX + 1], room[ATSK_PATH_MAX];
  struct atsk_str out;
  memset(wide, '/', sizeof wide);
  path_refused((struct atsk_str){wide, sizeof wide}, ATSK_REQUEST_LONG_PATH, "one byte too long");
  CHECK(atsk_path_normalise((struct atsk_str){wide, ATSK_PATH_MAX}, room, &out) == ATSK_REQUEST_FINE && out.len == 1,
        "the longest path, all slashes");
  for (size_t i = 1; i < ATSK_PATH_MAX; i++) {
    wide[i] = 'a';
  }
  memcpy(wide + ATSK_PATH_MAX - 3, "%2f", 3);
  CHECK(atsk_path_normalise((struct atsk_str){wide, ATSK_PATH_MAX}, room, &out) == ATSK_REQUEST_FINE && out.len == ATSK_PATH_MAX,
        "the longest path fills the room");
}

/* Random paths of the bytes that matter: the result is normal, no longer, and its own result. */
static void
properties(void)
{
  static const char *const pieces[] = {"/", ".", "..", "%2e", "%2F", "a", "%61", "//", "/../", "%", "\x80", "b"};
  static char room[ATSK_PATH_MAX], again[ATSK_PATH_MAX];
  unsigned n_fine = 0;
  for (unsigned round = 0; round < 200000; round++) {
    char path[128] = "/";
    size_t len     = 1;
    for (uint32_t n = random_below(12); n > 0; n--) {
      const char *piece = pieces[random_below(sizeof pieces / sizeof pieces[0])];
      memcpy(path + len, piece, strlen(piece));
      len += strlen(piece);
    }
    struct atsk_str out, twice;
    path[len] = '\0';
    if (atsk_path_normalise((struct atsk_str){path, len}, room, &out) != ATSK_REQUEST_FINE) {
      continue;
    }
    n_fine++;
    REQUIRE(out.len <= 3 * len && out.ptr[0] == '/', "\"%s\" grew", path);
    REQUIRE(memmem(out.ptr, out.len, "//", 2) == NULL && memmem(out.ptr, out.len, "/./", 3) == NULL &&
              memmem(out.ptr, out.len, "/../", 4) == NULL,
            "\"%s\" is not normal", path);
    REQUIRE(atsk_path_normalise(out, again, &twice) == ATSK_REQUEST_FINE && twice.ptr == out.ptr && twice.len == out.len,
            "\"%s\" is not its own result", path);
  }
  CHECK(n_fine > 10000, "%u random paths are normal, shorter and stable", n_fine);
}

int
main(void)
{
  random_seed();
  hosts();
  paths();
  properties();
  return tap_end();
}
