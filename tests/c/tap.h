/* What the C tests share: TAP output, seeded randomness, allocations made to fail.  One binary per test file, so everything is
 * static here. */
#ifndef ATSK_TESTS_TAP_H
#define ATSK_TESTS_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_n, tap_n_failed;

/* One TAP line; `what` is a printf format. */
#define CHECK(condition, ...)                                                  \
  do {                                                                         \
    bool tap_ok = (condition);                                                 \
    printf("%sok %d - ", tap_ok ? "" : "not ", ++tap_n);                       \
    printf(__VA_ARGS__);                                                       \
    printf(tap_ok ? "\n" : "\n# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
    tap_n_failed += !tap_ok;                                                   \
    if (tap_n_failed > 20) {                                                   \
      printf("Bail out! too many failures\n");                                 \
      exit(1);                                                                 \
    }                                                                          \
  } while (0)

/* As CHECK, for what is asked very often: a line only when it fails. */
#define REQUIRE(condition, ...)      \
  do {                               \
    if (!(condition)) {              \
      CHECK(condition, __VA_ARGS__); \
    }                                \
  } while (0)

/* The plan and the exit status; main() returns it. */
static inline int
tap_end(void)
{
  printf("1..%d\n", tap_n);
  return tap_n_failed == 0 && tap_n > 0 ? 0 : 1;
}

/* A number that the environment may set: seeds, durations, sizes. */
static inline uint64_t
setting(const char *name, uint64_t otherwise)
{
  const char *text = getenv(name);
  return text == NULL || text[0] == '\0' ? otherwise : strtoull(text, NULL, 0);
}

/* xorshift64*: the sequence is the seed's, on every machine. */
static uint64_t random_state;

static inline uint64_t
random_next(void)
{
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * UINT64_C(2685821657736338717);
}

static inline uint32_t
random_below(uint32_t limit)
{
  return (uint32_t)((random_next() >> 32) % limit);
}

static inline void
random_seed(void)
{
  uint64_t seed = setting("ATSK8S_SEED", 20260101);
  printf("# ATSK8S_SEED=%llu\n", (unsigned long long)seed);
  random_state = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
}

/* --- allocations that fail: the linker sends malloc, calloc and realloc of our code here (--wrap) --------------------------------- */

static uint64_t allocations;        /* so far */
static uint64_t allocation_to_fail; /* its number, from 1; 0: none */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static inline bool
allocation_fails(void)
{
  return ++allocations == allocation_to_fail;
}

void *
__wrap_malloc(size_t size)
{
  return allocation_fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
  return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *memory, size_t size)
{
  return allocation_fails() ? NULL : __real_realloc(memory, size);
}

/* The next `nth` allocation of this code, counted from 1, fails; 0: none does. */
static inline void
fail_allocation(uint64_t nth)
{
  allocations        = 0;
  allocation_to_fail = nth;
}

#define STR(literal) ((struct atsk_str){literal, sizeof(literal) - 1})

#endif
