/* Services by themselves: picks, turns, choices, what survives a change of endpoints, hostile records, failing allocations. */
#include "endpoints.h"
#include "staging.h"
#include "retire.h"
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

static void
picking(void)
{
  struct atsk_service *service = atsk_service_create(7);
  struct atsk_pick pick;
  CHECK(atsk_service_id(service) == 7, "a service knows its id");
  CHECK(atsk_service_pick(service, &pick) == ATSK_MISS, "no set yet: a miss");
  swap(service, 0, 0);
  CHECK(atsk_service_pick(service, &pick) == ATSK_MISS && atsk_service_size(service) == 0, "an empty set: a miss");
  swap(service, 10, 1);
  CHECK(atsk_service_pick(service, &pick) == ATSK_OK && pick.n == 1 && choice_number(&pick, 0) == 10, "one endpoint, one choice");
  atsk_pick_release(&pick);
  CHECK(pick.set == NULL, "released: empty");
  atsk_pick_release(&pick); /* legal */

  swap(service, 0, 7);
  unsigned seen[7] = {0};
  bool is_good     = true;
  for (unsigned i = 0; i < 70; i++) {
    is_good &= atsk_service_pick(service, &pick) == ATSK_OK && pick.n == ATSK_TRIES_MAX && pick.current == 0;
    seen[choice_number(&pick, 0)]++;
    for (uint32_t c = 1; c < pick.n; c++) {
      is_good &= choice_number(&pick, c) == (choice_number(&pick, 0) + c) % 7;
      atsk_pick_advance(&pick, c);
      is_good &= pick.current == c;
    }
    atsk_pick_release(&pick);
  }
  CHECK(is_good, "choices follow the first one in the set's order, all different");
  for (unsigned i = 0; i < 7; i++) {
    is_good &= seen[i] == 10;
  }
  CHECK(is_good, "70 picks of 7 endpoints: 10 each");

  unsigned n_first = 0;
  for (unsigned i = 0; i < 21; i++) {
    swap(service, 0, 7);
    REQUIRE(atsk_service_pick(service, &pick) == ATSK_OK, "pick");
    n_first += choice_number(&pick, 0) == 0;
    atsk_pick_release(&pick);
  }
  CHECK(n_first == 3, "turns go on over changes of the set: 21 picks, 21 changes, %u for the first of 7", n_first);

  struct atsk_pick held;
  REQUIRE(atsk_service_pick(service, &held) == ATSK_OK, "pick");
  uint32_t number = choice_number(&held, 0);
  swap(service, 100, 2);
  swap(service, 200, 2);
  CHECK(choice_number(&held, 0) == number, "a held set outlives two changes");
  atsk_service_destroy(service);
  CHECK(choice_number(&held, 1) == (number + 1) % 7, "and its service");
  atsk_pick_release(&held);
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
  REQUIRE(atsk_service_pick(service, &pick) == ATSK_OK, "pick");
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
    if (atsk_service_pick(service, pick) == ATSK_OK && random_below(2) == 0) {
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
  hostile();
  churn();
  without_memory();
  return tap_end();
}
