/* Options before Python: which text counts, and which differences make another digest. */
#include "process/options.h"
#include "tap.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static const char *const argv[]     = {"--kubeconfig=/k", "--cache=on"};
static char *const environment[]    = {(char *)"PATH=/bin", (char *)"ATSK8S_TENANCY=strict", (char *)"INGRESS_NS=a", NULL};
static const char *const no_argv[1] = {"--x"};

static bool
is_same(int n, const char *const args[], char *const variables[])
{
  uint8_t here[32], there[32];
  atsk_options_digest(COUNT(argv), argv, environment, here);
  atsk_options_digest(n, args, variables, there);
  return memcmp(here, there, sizeof here) == 0;
}

static void
digests(void)
{
  const char *const swapped[]   = {argv[1], argv[0]};
  const char *const others[]    = {argv[0],        argv[1],       "--state-dir=/s", "--log-level=debug", "--log-format=json",
                                   "--events=off", "--admin=off", "--venv=/v"};
  const char *const changed[]   = {argv[0], "--cache=off"};
  const char *const more[]      = {argv[0], argv[1], "--admin-of-sorts=1"};
  char *const reordered[]       = {environment[2], environment[1], NULL};
  char *const irrelevant[]      = {environment[1],
                                   environment[2],
                                   (char *)"ATSK8S_STATE_DIR=/s",
                                   (char *)"ATSK8S_TOKEN=secret",
                                   (char *)"TS_TOKEN=secret",
                                   (char *)"ATSK8S_SERVICE_HOST=10.0.0.1",
                                   (char *)"ATSK8S_SERVICE_PORT_HTTP=80",
                                   (char *)"ATSK8S_PORT=tcp://10.0.0.1:80",
                                   (char *)"ATSK8S_PORT_80_TCP_ADDR=10.0.0.1",
                                   (char *)"HOME=/root",
                                   NULL};
  char *const other_value[]     = {(char *)"ATSK8S_TENANCY=shared", environment[2], NULL};
  char *const another_option[]  = {environment[1], environment[2], (char *)"TS_SERVER=https://a", NULL};
  char *const a_port_of_ours[]  = {environment[1], environment[2], (char *)"ATSK8S_SOME_PORT=80", NULL};
  char *const as_an_argument[]  = {environment[1], environment[2], (char *)"--cache=on", NULL};
  char *const a_variable_less[] = {environment[1], NULL};
  CHECK(is_same(COUNT(argv), argv, environment), "the same");
  CHECK(is_same(COUNT(swapped), swapped, reordered), "in another order");
  CHECK(is_same(COUNT(others), others, irrelevant), "with what decides nothing, secrets, and variables of Kubernetes");
  CHECK(!is_same(COUNT(changed), changed, environment), "another value");
  CHECK(!is_same(1, argv, environment), "an argument less");
  CHECK(!is_same(COUNT(more), more, environment), "an option whose name only begins like one that does not count");
  CHECK(!is_same(COUNT(argv), argv, other_value), "another variable's value");
  CHECK(!is_same(COUNT(argv), argv, another_option), "an ancestor's variable");
  CHECK(!is_same(COUNT(argv), argv, a_port_of_ours), "an option that ends in PORT");
  CHECK(!is_same(1, argv, as_an_argument), "an argument is not a variable");
  CHECK(!is_same(COUNT(argv), argv, a_variable_less), "a variable less");
}

static void
texts(void)
{
  const char *const args[] = {"--state-dir=/first", "--state-dirs=/no", "--state-dir=/last", "state-dir=/no"};
  const char *const none[] = {"--state-dir=", "--state-dir"};
  unsetenv("ATSK8S_STATE_DIR");
  CHECK(atsk_option_text(0, no_argv, "state-dir", "ATSK8S_STATE_DIR") == NULL, "not there");
  CHECK(strcmp(atsk_option_text(COUNT(args), args, "state-dir", "ATSK8S_STATE_DIR"), "/last") == 0, "the last one");
  CHECK(atsk_option_text(COUNT(none), none, "state-dir", "ATSK8S_STATE_DIR") == NULL, "empty is none");
  setenv("ATSK8S_STATE_DIR", "/environment", 1);
  CHECK(strcmp(atsk_option_text(1, no_argv, "state-dir", "ATSK8S_STATE_DIR"), "/environment") == 0, "the variable");
  CHECK(strcmp(atsk_option_text(COUNT(args), args, "state-dir", "ATSK8S_STATE_DIR"), "/last") == 0, "an argument wins");
}

int
main(void)
{
  digests();
  texts();
  return tap_end();
}
