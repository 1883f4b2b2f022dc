/* Services by themselves: picks, turns, what survives a change of endpoints, hostile records, failing allocations.  Who is chosen is
 * test_balance.c's. */
#include "endpoints/endpoints.h"
#include "staging.h"
#include "base/retire.h"
#include "tap.h"

/* A new set of endpoints `first`..`first` + n - 1, swapped in; what it replaced is reclaimed at once: there are no readers. */
static void
swap(struct atsk_service *service, uint32_t first, uint32_t n)
{
  struct atsk_endpoint_record records[64];
  struct atsk_endpoint_set *set;
  struct atsk_retired *retired = NULL;
  for (uint32_t i = 0; i < n; i++) {
    records[i] = endpoint_record(first + i, 80);
  }
  REQUIRE(atsk_endpoint_set_create(service, records_span(records, n), &set) == ATSK_OK, "set");
  atsk_service_swap(service, set, &retired);
  atsk_reclaim_all(retired);
}

static uint32_t
choice_number(const struct atsk_pick *pick, uint32_t choice)
{
  struct atsk_endpoint_address address;
  atsk_pick_address(pick, choice, &address);
  return (uint32_t)address.addr[2] << 8 | address.addr[3];
}

static const struct atsk_pick_wish plain = {.panic_percent = 50, .now_ms = 1000};

static void
picking(void)
{
  struct atsk_service *service = atsk_service_create(7);
  struct atsk_pick pick;
  CHECK(atsk_service_id(service) == 7, "a service knows its id");
  CHECK(atsk_service_choose(service, &plain, &pick) == ATSK_MISS, "no set yet: a miss");
  swap(service, 0, 0);
  CHECK(atsk_service_choose(service, &plain, &pick) == ATSK_MISS && atsk_service_size(service) == 0, "an empty set: a miss");
  swap(service, 10, 1);
  CHECK(atsk_service_choose(service, &plain, &pick) == ATSK_OK && pick.n == 1 && choice_number(&pick, 0) == 10,
        "one endpoint, one choice");
  atsk_pick_release(&pick);
  CHECK(pick.set == NULL, "released: empty");
  atsk_pick_release(&pick); /* legal */

  swap(service, 0, 7);
  bool is_good = true;
  for (unsigned i = 0; i < 70; i++) {
    is_good &= atsk_service_choose(service, &plain, &pick) == ATSK_OK && pick.current == 0;
    for (uint32_t c = 1; c < pick.n; c++) {
      atsk_pick_advance(&pick, c);
      is_good &= pick.current == c;
    }
    atsk_pick_release(&pick);
  }
  CHECK(is_good, "a pick goes from choice to choice");

  unsigned n_first = 0;
  for (unsigned i = 0; i < 21; i++) {
    swap(service, 0, 7);
    REQUIRE(atsk_service_choose(service, &plain, &pick) == ATSK_OK, "pick");
    n_first += choice_number(&pick, 0) == 0;
    atsk_pick_release(&pick);
  }
  CHECK(n_first == 3, "turns go on over changes of the set: 21 picks, 21 changes, %u for the first of 7", n_first);
  atsk_service_destroy(service);
}

/* What endpoint `number` of a service has lived through. */
static struct atsk_endpoint_health
health_of(const struct atsk_service *service, uint32_t number)
{
  struct atsk_endpoints_view view;
  struct atsk_endpoint_health health = {0};
  atsk_service_view(service, &view);
  for (uint32_t i = 0; i < view.n; i++) {
    struct atsk_endpoint_record record;
    atsk_endpoints_record(&view, i, &record);
    if (((uint32_t)record.addr[2] << 8 | record.addr[3]) == number) {
      atsk_endpoints_health(&view, i, &health);
    }
  }
  return health;
}

static void
surviving(void)
{
  const struct atsk_health_rules rules = {.max_failures = 1, .base_ms = 1000, .max_ms = 1000};
  struct atsk_service *service         = atsk_service_create(1);
  struct atsk_pick held, other;
  swap(service, 0, 7);
  REQUIRE(atsk_service_choose(service, &plain, &held) == ATSK_OK, "pick");
  const uint32_t number = choice_number(&held, 0), next = choice_number(&held, 1);
  CHECK(health_of(service, number).in_flight == 1 && health_of(service, next).in_flight == 0, "in flight: one");
  swap(service, 0, 9);
  CHECK(health_of(service, number).in_flight == 1, "in flight still, when the set has changed");
  CHECK(atsk_pick_failed(&held, &rules, 1000, 1), "a failure of one picked from the former set");
  struct atsk_endpoint_health health = health_of(service, number);
  CHECK(health.failures == 1 && health.failures_in_row == 1 && health.ejected_until_ms > 1000 && health.is_eligible,
        "ejects it in the present one");
  bool is_left_out = true;
  for (unsigned i = 0; i < 50; i++) {
    REQUIRE(atsk_service_choose(service, &plain, &other) == ATSK_OK, "pick");
    is_left_out &= choice_number(&other, 0) != number;
    atsk_pick_release(&other);
  }
  CHECK(is_left_out, "where it is left out");
  atsk_pick_advance(&held, 1);
  CHECK(health_of(service, number).in_flight == 0 && health_of(service, next).in_flight == 1, "the count moves on with the pick");
  CHECK(!atsk_pick_succeeded(&held), "a success of one that had no failure ends nothing");
  atsk_pick_advance(&held, 0);
  CHECK(atsk_pick_succeeded(&held) && health_of(service, number).ejected_until_ms == 0, "one of the ejected restores it");
  const uint64_t tag = atsk_pick_tag(&held, 0);
  CHECK(tag != 0 && tag != atsk_pick_tag(&held, 1), "endpoints have tags of their own");

  swap(service, 100, 2);
  swap(service, 200, 2);
  CHECK(choice_number(&held, 0) == number && atsk_pick_tag(&held, 0) == tag, "a held set outlives two changes");
  atsk_service_destroy(service);
  CHECK(choice_number(&held, 1) == next && atsk_pick_failed(&held, &rules, 1000, 1),
        "and its service, whose failures are still told");
  atsk_pick_release(&held);
}

/* How many failures in a row eject an endpoint of a set whose service says `own` itself, under rules that say 2; 0: none does. */
static unsigned
ejecting(uint32_t own)
{
  const struct atsk_health_rules rules = {.max_failures = 2, .base_ms = 1000, .max_ms = 1000};
  struct atsk_service *service         = atsk_service_create(1);
  struct atsk_retired *retired         = NULL;
  struct atsk_endpoint_record record   = endpoint_record(0, 80);
  struct atsk_endpoint_set *set;
  struct atsk_pick pick;
  unsigned n = 0;
  REQUIRE(atsk_endpoint_set_create(service, records_span(&record, 1), &set) == ATSK_OK, "set");
  REQUIRE(atsk_endpoint_set_eject_after(set, own) == ATSK_OK, "own");
  atsk_service_swap(service, set, &retired);
  REQUIRE(atsk_service_choose(service, &plain, &pick) == ATSK_OK, "pick");
  while (n++ < 2 * ATSK_HEALTH_FAILURES_MAX && !atsk_pick_failed(&pick, &rules, 1000, 1)) {
  }
  atsk_pick_release(&pick);
  atsk_service_destroy(service);
  return n <= 2 * ATSK_HEALTH_FAILURES_MAX ? n : 0;
}

static void
own_failures(void)
{
  struct atsk_service *service = atsk_service_create(1);
  struct atsk_endpoint_set *set;
  CHECK(ejecting(ATSK_NONE) == 2, "a service that says nothing: as the rules say");
  CHECK(ejecting(1) == 1 && ejecting(ATSK_HEALTH_FAILURES_MAX) == ATSK_HEALTH_FAILURES_MAX, "as the service says, less or more");
  CHECK(ejecting(0) == 0, "0: never");
  REQUIRE(atsk_endpoint_set_create_name(service, STR("a.test"), 443, &set) == ATSK_OK, "a name");
  CHECK(atsk_endpoint_set_eject_after(set, ATSK_HEALTH_FAILURES_MAX + 1) == ATSK_E_RANGE &&
          atsk_endpoint_set_eject_after(set, ATSK_NONE - 1) == ATSK_E_RANGE,
        "more than there may be: refused");
  atsk_endpoint_set_destroy(set);
  atsk_service_destroy(service);
}

static void
refused(struct atsk_endpoint_record record, enum atsk_status expected, const char *why)
{
  struct atsk_service *service       = atsk_service_create(1);
  struct atsk_endpoint_set *set      = NULL;
  struct atsk_endpoint_record two[2] = {endpoint_record(1, 80), record};
  CHECK(atsk_endpoint_set_create(service, records_span(two, 2), &set) == expected && set == NULL, "refused: %s", why);
  atsk_service_destroy(service);
}

static void
hostile(void)
{
  struct atsk_endpoint_record record = endpoint_record(2, 80);
  record.family                      = 5;
  refused(record, ATSK_E_RANGE, "unknown family");
  record      = endpoint_record(2, 80);
  record.port = 0;
  refused(record, ATSK_E_RANGE, "port 0");
  record        = endpoint_record(2, 80);
  record.weight = 0;
  refused(record, ATSK_E_RANGE, "weight 0");
  record       = endpoint_record(2, 80);
  record.flags = 0x80;
  refused(record, ATSK_E_LAYOUT, "unknown flag");
  record          = endpoint_record(2, 80);
  record.addr[15] = 1;
  refused(record, ATSK_E_LAYOUT, "bytes after an IPv4 address");
  refused(endpoint_record(1, 80), ATSK_E_ORDER, "twice the same");
  refused(endpoint_record(0, 80), ATSK_E_ORDER, "out of order");
  refused(endpoint_record(1, 79), ATSK_E_ORDER, "ports out of order");

  struct atsk_service *service  = atsk_service_create(1);
  struct atsk_endpoint_set *set = NULL;
  uint8_t bytes[1 + 2 * sizeof record];
  struct atsk_endpoint_record two[2] = {endpoint_record(1, 80), endpoint_record(2, 80)};
  two[1].family                      = ATSK_FAMILY_IPV6;
  two[1].addr[15]                    = 1;
  memcpy(bytes + 1, two, sizeof two);
  CHECK(atsk_endpoint_set_create(service, (struct atsk_span){bytes + 1, sizeof two - 1}, &set) == ATSK_E_TRUNCATED,
        "half a record");
  CHECK(atsk_endpoint_set_create(service, (struct atsk_span){bytes + 1, sizeof two}, &set) == ATSK_OK, "records at an odd address");
  atsk_endpoint_set_destroy(set);
  set = NULL;
  CHECK(atsk_endpoint_set_create_name(service, STR(""), 80, &set) == ATSK_E_RANGE, "no name");
  CHECK(atsk_endpoint_set_create_name(service, STR("a.test"), 0, &set) == ATSK_E_RANGE, "a name without port");
  CHECK(atsk_endpoint_set_create_name(service, STR("a.test"), 443, &set) == ATSK_OK, "a name");
  struct atsk_retired *retired = NULL;
  atsk_service_swap(service, set, &retired);
  struct atsk_pick pick;
  struct atsk_endpoint_address address;
  REQUIRE(atsk_service_choose(service, &plain, &pick) == ATSK_OK, "pick");
  atsk_pick_address(&pick, 0, &address);
  CHECK(address.family == 0 && address.port == 443 && address.name.len == 6 && memcmp(address.name.ptr, "a.test", 6) == 0,
        "a name's choice is the name");
  atsk_pick_release(&pick);
  atsk_service_destroy(service);
  atsk_endpoint_set_destroy(NULL);
  atsk_service_destroy(NULL);
}

/* Random sets follow one another while picks are held; the sanitizers watch the states' lives. */
static void
churn(void)
{
  struct atsk_service *service = atsk_service_create(1);
  struct atsk_pick held[16]    = {{0}};
  for (unsigned round = 0; round < 20000; round++) {
    swap(service, random_below(20), random_below(12));
    struct atsk_pick *pick = &held[random_below(16)];
    atsk_pick_release(pick);
    if (atsk_service_choose(service, &plain, pick) == ATSK_OK && random_below(2) == 0) {
      atsk_pick_advance(pick, random_below(pick->n));
    }
  }
  for (unsigned i = 0; i < 16; i++) {
    atsk_pick_release(&held[i]);
  }
  atsk_service_destroy(service);
  CHECK(true, "20,000 changes with picks held");
}

static void
labels(void)
{
  char text[]                  = "cart:80";
  const struct atsk_str given  = {text, sizeof text - 1};
  const struct atsk_str second = {"other:1", 7};
  struct atsk_service *service = atsk_service_create(3);
  CHECK(atsk_service_label(service).len == 0, "no label yet");
  fail_allocation(1);
  CHECK(atsk_service_label_set(service, given) == ATSK_E_NOMEM && atsk_service_label(service).len == 0, "a label without memory");
  fail_allocation(0);
  CHECK(atsk_service_label_set(service, given) == ATSK_OK, "a label is given");
  text[0] = 'X';
  CHECK(atsk_service_label_set(service, second) == ATSK_OK, "a second one is passed over");
  const struct atsk_str found = atsk_service_label(service);
  CHECK(found.len == 7 && memcmp(found.ptr, "cart:80", 7) == 0, "the first one stays, a copy");
  atsk_service_destroy(service);
}

static void
without_memory(void)
{
  struct atsk_service *service = atsk_service_create(1);
  swap(service, 0, 4);
  struct atsk_endpoint_record records[8];
  for (uint32_t i = 0; i < 8; i++) {
    records[i] = endpoint_record(i + 2, 80);
  }
  unsigned n_failed = 0;
  for (uint64_t nth = 1;; nth++) {
    struct atsk_endpoint_set *set = NULL;
    fail_allocation(nth);
    enum atsk_status st = atsk_endpoint_set_create(service, records_span(records, 8), &set);
    fail_allocation(0);
    if (st == ATSK_OK) {
      atsk_endpoint_set_destroy(set);
      break;
    }
    REQUIRE(st == ATSK_E_NOMEM && set == NULL, "allocation %llu", (unsigned long long)nth);
    n_failed++;
  }
  CHECK(n_failed == 1 + 6, "each of %u allocations failed in turn", n_failed); /* the set; two of eight states are carried over */
  fail_allocation(1);
  CHECK(atsk_service_create(2) == NULL, "a service without memory");
  fail_allocation(0);
  atsk_service_destroy(service);
}

int
main(void)
{
  random_seed();
  picking();
  surviving();
  own_failures();
  hostile();
  churn();
  labels();
  without_memory();
  return tap_end();
}
