/* Who a request comes from: peers, chains of trusted proxies, and what clients write to be somebody else. */
#include "../../plugin_c/hooks/client.c"
#include "tap.h"

static struct atsk_settings settings;

static const char *
text_of(const struct atsk_client *client)
{
  static char text[64];
  if (client->family == 0) {
    return "unknown";
  }
  return inet_ntop(client->family == ATSK_FAMILY_IPV4 ? AF_INET : AF_INET6, client->addr, text, sizeof text);
}

static struct atsk_client
peer(const char *text)
{
  struct atsk_client client;
  struct sockaddr_in v4  = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    atsk_client_of_peer((const struct sockaddr *)&v4, &client);
  } else {
    REQUIRE(inet_pton(AF_INET6, text, &v6.sin6_addr) == 1, "%s", text);
    atsk_client_of_peer((const struct sockaddr *)&v6, &client);
  }
  return client;
}

static void
walk(const char *from, const char *value, const char *wanted, bool goes_on)
{
  struct atsk_client client = peer(from);
  bool on                   = atsk_client_of_forwarded(&settings, (struct atsk_str){value, strlen(value)}, &client);
  CHECK(strcmp(text_of(&client), wanted) == 0 && on == goes_on, "%s said \"%s\": %s", from, value, text_of(&client));
}

int
main(void)
{
  settings.n_trusted  = 2;
  settings.trusted[0] = (struct atsk_network){.addr = {10}, .family = ATSK_FAMILY_IPV4, .bits = 8};
  settings.trusted[1] = (struct atsk_network){.addr = {0xfd}, .family = ATSK_FAMILY_IPV6, .bits = 8};

  struct atsk_client client;
  atsk_client_of_peer(NULL, &client);
  CHECK(client.family == 0, "no peer");
  CHECK(!atsk_client_is_trusted(&settings, &client), "which nobody trusts");
  client = peer("::ffff:10.0.0.1");
  CHECK(strcmp(text_of(&client), "10.0.0.1") == 0, "IPv4 in IPv6's clothes");

  walk("192.0.2.1", "198.51.100.7", "192.0.2.1", false);
  walk("10.0.0.1", "198.51.100.7", "198.51.100.7", false);
  walk("10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7", false);
  walk("10.0.0.1", "1.2.3.4,198.51.100.7 , 10.9.9.9,\t10.8.8.8", "198.51.100.7", false);
  walk("10.0.0.1", "10.9.9.9, 10.8.8.8", "10.9.9.9", true);
  walk("10.0.0.1", "", "10.0.0.1", true);
  walk("10.0.0.1", " , ,", "10.0.0.1", true);
  walk("10.0.0.1", "1.2.3.4, unknown, 10.8.8.8", "10.8.8.8", false);
  walk("10.0.0.1", "1.2.3.4, _hidden", "10.0.0.1", false);
  walk("10.0.0.1", "198.51.100.7:4711", "198.51.100.7", false);
  walk("10.0.0.1", "2001:db8::7", "2001:db8::7", false);
  walk("fd00::1", "[2001:db8::7]:443", "2001:db8::7", false);
  walk("fd00::1", "[2001:db8::7]", "2001:db8::7", false);
  walk("10.0.0.1", "::ffff:192.0.2.9", "192.0.2.9", false);
  walk("10.0.0.1", "1.2.3.4, [", "10.0.0.1", false);
  walk("10.0.0.1", "1.2.3.4, []", "10.0.0.1", false);
  walk("10.0.0.1", "1.2.3.4, :80", "10.0.0.1", false);
  walk("10.0.0.1", "1.2.3.4, 300.1.1.1", "10.0.0.1", false);
  char longest[300];
  memset(longest, '1', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  walk("10.0.0.1", longest, "10.0.0.1", false);
  return tap_end();
}
