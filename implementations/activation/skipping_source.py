"""The C source of the skipping kernel: which neurons a token uses, and the sum of their rows. Compiled by `shared/compiled.py`.

Rows of the second matrix lie neuron by neuron, so that what is skipped is whole contiguous rows. Which instructions run is decided
when it runs. A NaN is used, not skipped: the answer to it is NaN, as that of the dense layer.
"""

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#define X86 1
#endif
#define INLINE static inline __attribute__((always_inline))
#define TOGETHER 4 /* rows that are added in one pass over the output */

int best_level(void) {
#ifdef X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

/* Afterwards the `keep` largest of a[0..n) stand first. */
static void largest_first(uint64_t *a, int64_t n, int64_t keep) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    uint64_t x = a[low], y = a[(low + high) >> 1], z = a[high];
    uint64_t pivot = x > y ? (y > z ? y : x > z ? z : x) : (x > z ? x : y > z ? z : y);
    int64_t i = low, j = high;
    while (i <= j) {
      while (a[i] > pivot) i++;
      while (a[j] < pivot) j--;
      if (i <= j) { uint64_t t = a[i]; a[i++] = a[j]; a[j--] = t; }
    }
    if (keep - 1 <= j) high = j;
    else if (keep - 1 >= i) low = i;
    else return;
  }
}

/* The sum is over positive values, whose bits sort as they do; of equal ones the first neuron is the larger. */
INLINE uint64_t packed(float value, int32_t number) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (uint64_t)(bits & 0x7fffffffu) << 32 | (0xffffffffu - (uint32_t)number);
}

/* Before the activation, h [n][f] -> per token the neurons above zero, the k largest of them if there are more, in their order:
   index [n][f], value [n][f], count [n]. 1 where there is no memory. */
int64_t select_used(const float *h, int64_t n, int64_t f, int64_t k, int32_t *index, float *value, int64_t *count) {
  uint64_t *order = 0;
  for (int64_t t = 0; t < n; t++, h += f, index += f, value += f) {
    int64_t used = 0;
    for (int64_t i = 0; i < f; i++) {
      index[used] = (int32_t)i;
      value[used] = h[i];
      used += !(h[i] <= 0);
    }
    if (used > k) {
      if (!order && !(order = malloc(sizeof(uint64_t) * f))) return 1;
      for (int64_t i = 0; i < used; i++) order[i] = packed(value[i], index[i]);
      largest_first(order, used, k);
      uint64_t least = order[0];
      for (int64_t i = 1; i < k; i++) least = order[i] < least ? order[i] : least;
      int64_t kept = 0;
      for (int64_t i = 0; i < used; i++) {
        int keep = packed(value[i], index[i]) >= least;
        index[kept] = index[i];
        value[kept] = value[i];
        kept += keep;
      }
      used = kept;
    }
    count[t] = used;
  }
  free(order);
  return 0;
}

INLINE void add_rows(const int32_t *index, const float *value, int64_t used, const float *rows, int64_t d, int64_t first,
                     int64_t last, float *restrict y) {
  int64_t i = 0;
  for (; i + TOGETHER <= used; i += TOGETHER) {
    const float *r0 = rows + index[i] * d, *r1 = rows + index[i + 1] * d, *r2 = rows + index[i + 2] * d, *r3 = rows + index[i + 3] * d;
    float v0 = value[i], v1 = value[i + 1], v2 = value[i + 2], v3 = value[i + 3];
    /* Rows are short streams at places that no prefetcher guesses. */
    for (int64_t j = i + TOGETHER; j < used && j < i + 2 * TOGETHER; j++)
      for (int64_t c = first; c < last && c < first + 128; c += 16) __builtin_prefetch(rows + index[j] * d + c);
#pragma omp simd
    for (int64_t c = first; c < last; c++) y[c] += (v0 * r0[c] + v1 * r1[c]) + (v2 * r2[c] + v3 * r3[c]);
  }
  for (; i < used; i++) {
    const float *row = rows + index[i] * d;
    float v = value[i];
#pragma omp simd
    for (int64_t c = first; c < last; c++) y[c] += v * row[c];
  }
}

#define DOWN(name, how)                                                                                                        \
  how static void name(const int32_t *index, const float *value, const int64_t *count, int64_t n, int64_t f, const float *rows, \
                       const float *bias, int64_t d, int64_t first, int64_t last, float *y) {                                  \
    for (int64_t t = 0; t < n; t++) {                                                                                          \
      memcpy(y + t * d + first, bias + first, sizeof(float) * (last - first));                                                 \
      add_rows(index + t * f, value + t * f, count[t], rows, d, first, last, y + t * d);                                       \
    }                                                                                                                          \
  }
DOWN(down_plain, )
#ifdef X86
DOWN(down_avx2, __attribute__((target("avx2,fma"))))
DOWN(down_avx512, __attribute__((target("avx512f"))))
#endif

/* Columns first..last of y [n][d] = bias + the sum of the rows used. */
void down(const int32_t *index, const float *value, const int64_t *count, int64_t n, int64_t f, const float *rows,
          const float *bias, int64_t d, int64_t first, int64_t last, float *y, int64_t level) {
#ifdef X86
  if (level == 2) { down_avx512(index, value, count, n, f, rows, bias, d, first, last, y); return; }
  if (level == 1) { down_avx2(index, value, count, n, f, rows, bias, d, first, last, y); return; }
#endif
  down_plain(index, value, count, n, f, rows, bias, d, first, last, y);
}
"""
