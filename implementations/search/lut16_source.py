"""The C source of the look-up kernel: encoding, and the whole search loop over grouped queries. Compiled by `compiled.py`.

Codes lie in groups of 32 points. Block j of a group takes 16 bytes: byte i holds point i in its low half and point i + 16 in its
high half, so that one byte shuffle looks up one block for 16 points a lane. Sums are 16 bits wide: even and odd points are kept
apart by shifting, and the carry of the odd ones is taken out at the end (exact, since the true sum is below 65536). The same
layout serves AVX-512 (4 blocks a register), AVX2 (2 blocks) and plain C. Which one runs is decided when it runs.
"""

SOURCE = r"""
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#endif
#define INLINE static inline __attribute__((always_inline))
#define GROUP 32

typedef struct {
  int64_t d, partitions, blocks, width; /* blocks: a multiple of 4, each of `width` dimensions */
  int64_t l2, copies, stored;           /* copies of a row in lists; stored vectors: 0 none, 1 float32, 2 int8 */
  const int64_t *first;                 /* [partitions] number of the first group */
  const int64_t *size;                  /* [partitions] points */
  const uint8_t *codes;                 /* [groups][blocks][16] */
  const int32_t *ids;                   /* [groups][32] row of a point */
  const float *bias;                    /* [groups][32] |x|^2/2, or null */
  const float *centre_bias;             /* [partitions] |c|^2/2, or null */
  const float *codebook;                /* [blocks][width][16] */
  const void *vectors;                  /* [rows][d] float32 or int8 */
  const float *steps;                   /* [d] of int8 vectors */
  const float *norms;                   /* [rows] |x|^2/2 of int8 vectors, or null */
} Index;

typedef struct { uint64_t *item; int64_t count, keep, room; float least; } Heap;
typedef struct { int32_t query, partition; float score; } Pair;

int best_level(void) {
#ifdef X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

/* A score and a number in one integer that sorts as (score, number), so that ties fall the same way in any order. */
INLINE uint64_t packed(float score, uint32_t number) {
  uint32_t bits;
  memcpy(&bits, &score, 4);
  bits ^= (bits >> 31) ? 0xffffffffu : 0x80000000u;
  return (uint64_t)bits << 32 | number;
}
INLINE float score_of(uint64_t item) {
  uint32_t bits = item >> 32;
  bits ^= (bits >> 31) ? 0x80000000u : 0xffffffffu;
  float score;
  memcpy(&score, &bits, 4);
  return score;
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
static void compact(Heap *h) {
  if (h->count <= h->keep) return;
  largest_first(h->item, h->count, h->keep);
  h->count = h->keep;
  uint64_t least = h->item[0];
  for (int64_t i = 1; i < h->keep; i++) least = h->item[i] < least ? h->item[i] : least;
  h->least = score_of(least);
}
static void sort_down(uint64_t *a, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    uint64_t x = a[i];
    int64_t j = i;
    for (; j > 0 && a[j - 1] < x; j--) a[j] = a[j - 1];
    a[j] = x;
  }
}

/* Scores of 32 points, score = base + step * sum - bias, and a bit for each that is not below `least`. */
INLINE uint32_t group_plain(const uint8_t *codes, const uint8_t *table, int64_t blocks, float base, float step,
                            const float *bias, float least, float *score) {
  uint32_t passed = 0;
  for (int i = 0; i < GROUP; i++) {
    uint32_t sum = 0;
    for (int64_t j = 0; j < blocks; j++) sum += table[16 * j + ((codes[16 * j + (i & 15)] >> (i & 16 ? 4 : 0)) & 15)];
    score[i] = base + step * (float)sum - (bias ? bias[i] : 0);
    passed |= (uint32_t)(score[i] >= least) << i;
  }
  return passed;
}
#ifdef X86
__attribute__((target("avx2,fma"))) static inline uint32_t group_avx2(const uint8_t *codes, const uint8_t *table, int64_t blocks,
    float base, float step, const float *bias, float least, float *score) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, e = a;
  for (int64_t j = 0; j < blocks; j += 2) {
    __m256i code = _mm256_loadu_si256((const __m256i *)(codes + 16 * j));
    __m256i lut = _mm256_loadu_si256((const __m256i *)(table + 16 * j));
    __m256i x = _mm256_shuffle_epi8(lut, _mm256_and_si256(code, low));
    __m256i y = _mm256_shuffle_epi8(lut, _mm256_and_si256(_mm256_srli_epi16(code, 4), low));
    a = _mm256_add_epi16(a, x);
    b = _mm256_add_epi16(b, _mm256_srli_epi16(x, 8));
    c = _mm256_add_epi16(c, y);
    e = _mm256_add_epi16(e, _mm256_srli_epi16(y, 8));
  }
  a = _mm256_sub_epi16(a, _mm256_slli_epi16(b, 8));
  c = _mm256_sub_epi16(c, _mm256_slli_epi16(e, 8));
#define FOLD2(v) _mm_add_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1))
  __m128i even = FOLD2(a), odd = FOLD2(b), even2 = FOLD2(c), odd2 = FOLD2(e);
  __m128i sums[4] = {_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even2, odd2),
                     _mm_unpackhi_epi16(even2, odd2)};
  uint32_t passed = 0;
  for (int i = 0; i < 4; i++) {
    __m256 s = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(sums[i])), _mm256_set1_ps(step), _mm256_set1_ps(base));
    if (bias) s = _mm256_sub_ps(s, _mm256_loadu_ps(bias + 8 * i));
    _mm256_storeu_ps(score + 8 * i, s);
    passed |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(s, _mm256_set1_ps(least), _CMP_GE_OQ)) << (8 * i);
  }
  return passed;
}
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))) static inline uint32_t group_avx512(const uint8_t *codes,
    const uint8_t *table, int64_t blocks, float base, float step, const float *bias, float least, float *score) {
  const __m512i low = _mm512_set1_epi8(15);
  __m512i a = _mm512_setzero_si512(), b = a, c = a, e = a;
  for (int64_t j = 0; j < blocks; j += 4) {
    __m512i code = _mm512_loadu_si512(codes + 16 * j), lut = _mm512_loadu_si512(table + 16 * j);
    __m512i x = _mm512_shuffle_epi8(lut, _mm512_and_si512(code, low));
    __m512i y = _mm512_shuffle_epi8(lut, _mm512_and_si512(_mm512_srli_epi16(code, 4), low));
    a = _mm512_add_epi16(a, x);
    b = _mm512_add_epi16(b, _mm512_srli_epi16(x, 8));
    c = _mm512_add_epi16(c, y);
    e = _mm512_add_epi16(e, _mm512_srli_epi16(y, 8));
  }
  a = _mm512_sub_epi16(a, _mm512_slli_epi16(b, 8));
  c = _mm512_sub_epi16(c, _mm512_slli_epi16(e, 8));
#define FOLD4(v) ({ __m256i h = _mm256_add_epi16(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)); \
    _mm_add_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)); })
  __m128i even = FOLD4(a), odd = FOLD4(b), even2 = FOLD4(c), odd2 = FOLD4(e);
  __m256i sums[2] = {_mm256_set_m128i(_mm_unpackhi_epi16(even, odd), _mm_unpacklo_epi16(even, odd)),
                     _mm256_set_m128i(_mm_unpackhi_epi16(even2, odd2), _mm_unpacklo_epi16(even2, odd2))};
  uint32_t passed = 0;
  for (int i = 0; i < 2; i++) {
    __m512 s = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(sums[i])), _mm512_set1_ps(step), _mm512_set1_ps(base));
    if (bias) s = _mm512_sub_ps(s, _mm512_loadu_ps(bias + 16 * i));
    _mm512_storeu_ps(score + 16 * i, s);
    passed |= (uint32_t)_mm512_cmp_ps_mask(s, _mm512_set1_ps(least), _CMP_GE_OQ) << (16 * i);
  }
  return passed;
}
#endif

/* Tables of one query: products with all codewords, moved and scaled to bytes whose sum fits 16 bits. */
INLINE void tables(const Index *x, const float *q, float *product, uint8_t *table, float *base, float *step) {
  float widest = 0, total = 0, sum = 0;
  float *least = product + 16 * x->blocks;
  for (int64_t j = 0; j < x->blocks; j++) {
    float *out = product + 16 * j;
    for (int c = 0; c < 16; c++) out[c] = 0;
    for (int64_t t = 0; t < x->width; t++) {
      const float *word = x->codebook + (j * x->width + t) * 16;
      float value = q[j * x->width + t];
      for (int c = 0; c < 16; c++) out[c] += value * word[c];
    }
    float low = FLT_MAX, high = -FLT_MAX;
    for (int c = 0; c < 16; c++) { low = out[c] < low ? out[c] : low; high = out[c] > high ? out[c] : high; }
    least[j] = low;
    sum += low;
    total += high - low;
    widest = high - low > widest ? high - low : widest;
  }
  float scale = widest > 0 ? 255 / widest : 0;
  if (total * scale > 65000 - x->blocks) scale = (65000 - x->blocks) / total; /* rounding adds at most half a unit a block */
  for (int64_t j = 0; j < x->blocks; j++)
    for (int c = 0; c < 16; c++) table[16 * j + c] = (uint8_t)(int32_t)((product[16 * j + c] - least[j]) * scale + 0.5f);
  *base = sum;
  *step = scale > 0 ? 1 / scale : 0;
}

INLINE float exact_score(const Index *x, const float *q, int32_t row) {
  float sum = 0;
  if (x->stored == 1) {
    const float *v = (const float *)x->vectors + (int64_t)row * x->d;
    if (x->l2) {
      _Pragma("omp simd reduction(+:sum)")
      for (int64_t t = 0; t < x->d; t++) sum += (q[t] - v[t]) * (q[t] - v[t]);
      return -sum;
    }
    _Pragma("omp simd reduction(+:sum)")
    for (int64_t t = 0; t < x->d; t++) sum += q[t] * v[t];
    return sum;
  }
  const int8_t *v = (const int8_t *)x->vectors + (int64_t)row * x->d;
  _Pragma("omp simd reduction(+:sum)")
  for (int64_t t = 0; t < x->d; t++) sum += q[t] * (float)v[t]; /* q holds the steps already */
  return x->norms ? sum - x->norms[row] : sum;
}

/* The candidates of one query: duplicates out, rescored, the k best written, nearest first. Returns how many were rescored. */
INLINE int64_t finish(const Index *x, Heap *h, const float *q, float *scaled, int64_t k, int64_t rescored, int64_t *seen, int64_t *out) {
  compact(h);
  uint64_t *a = h->item;
  int64_t n = h->count;
  for (int64_t i = 0; i < n; i++) a[i] = (a[i] & ~0xffffffffull) | (uint32_t)x->ids[(uint32_t)a[i]];
  if (x->copies > 1 && n) { /* an open hash table of rows; of two copies the better score stays */
    int64_t slots = 64, left = 0;
    while (slots < 2 * n) slots *= 2;
    memset(seen, 255, slots * sizeof *seen);
    for (int64_t i = 0; i < n; i++) {
      uint64_t at = ((uint32_t)a[i] * 2654435761u) & (slots - 1);
      while (seen[at] >= 0 && (uint32_t)a[seen[at]] != (uint32_t)a[i]) at = (at + 1) & (slots - 1);
      if (seen[at] < 0) { seen[at] = left; a[left++] = a[i]; }
      else if (a[i] > a[seen[at]]) a[seen[at]] = a[i];
    }
    n = left;
  }
  int64_t wanted = x->stored ? rescored : k;
  if (n > wanted) { largest_first(a, n, wanted); n = wanted; }
  int64_t work = 0;
  if (x->stored) {
    const int64_t bytes = x->d * (x->stored == 1 ? 4 : 1);
    if (x->stored == 2) { for (int64_t t = 0; t < x->d; t++) scaled[t] = q[t] * x->steps[t]; q = scaled; }
    for (int64_t i = 0; i < n + 4; i++) {
      if (i < n) {
        const char *next = (const char *)x->vectors + (int64_t)(uint32_t)a[i] * bytes;
        for (int64_t t = 0; t < bytes; t += 64) __builtin_prefetch(next + t);
      }
      if (i >= 4) a[i - 4] = packed(exact_score(x, q, (int32_t)(uint32_t)a[i - 4]), (uint32_t)a[i - 4]);
    }
    work = n;
  }
  if (n > k) { largest_first(a, n, k); n = k; }
  sort_down(a, n);
  for (int64_t i = 0; i < k; i++) out[i] = i < n ? (int64_t)(uint32_t)a[i] : -1;
  return work;
}

/* Queries [count, d] and their products with all centres [count, partitions] -> rows [count, k]. done: points, rescored. */
INLINE int search_body(const Index *x, const float *queries, const float *products, int64_t count, int64_t k, int64_t leaves,
                       int64_t rescored, int64_t *out, int64_t *done, const int level) {
  const int64_t P = x->partitions, B = x->blocks, wide = B * x->width > x->d ? B * x->width : x->d;
  const int64_t keep = (x->stored ? rescored : k) * x->copies, room = 2 * keep + 2 * GROUP;
  int64_t slots = 64;
  while (slots < 2 * room) slots *= 2;
  float *q = calloc(wide, sizeof *q), *scaled = malloc(x->d * sizeof *scaled), *product = malloc(17 * B * sizeof *product);
  float *base = malloc(count * sizeof *base), *step = malloc(count * sizeof *step);
  uint8_t *table = aligned_alloc(64, 16 * B * count + 64);
  uint64_t *items = malloc(count * room * sizeof *items), *order = malloc(P * sizeof *order);
  int64_t *seen = x->copies > 1 ? malloc(slots * sizeof *seen) : 0, *start = calloc(2 * P + 1, sizeof *start);
  Heap *heaps = malloc(count * sizeof *heaps);
  Pair *pairs = malloc(count * leaves * sizeof *pairs), *sorted = malloc(count * leaves * sizeof *sorted);
  int failed = !(q && scaled && product && base && step && table && items && order && start && heaps && pairs && sorted) ||
               (x->copies > 1 && !seen);
  int64_t points = 0, work = 0;
  if (!failed) {
    for (int64_t i = 0; i < count; i++) {
      memcpy(q, queries + i * x->d, x->d * sizeof *q);
      tables(x, q, product, table + 16 * B * i, base + i, step + i);
      heaps[i] = (Heap){items + i * room, 0, keep, room, -FLT_MAX};
      const float *s = products + i * P;
      uint64_t best = 0;
      for (int64_t p = 0; p < P; p++) order[p] = packed(x->centre_bias ? s[p] - x->centre_bias[p] : s[p], (uint32_t)p);
      if (leaves < P) largest_first(order, P, leaves);
      for (int64_t t = 0; t < leaves; t++) best = order[t] > best ? order[t] : best;
      for (int64_t t = 0; t < leaves; t++) {
        int32_t p = (int32_t)(uint32_t)order[t];
        pairs[i * leaves + t] = (Pair){(int32_t)i, order[t] == best ? p : (int32_t)P + p, s[p]};
        start[pairs[i * leaves + t].partition + 1]++;
      }
    }
    /* The nearest partition of every query first, which makes the bar high early; then partition by partition. */
    for (int64_t p = 0; p < 2 * P; p++) start[p + 1] += start[p];
    for (int64_t t = 0; t < count * leaves; t++) sorted[start[pairs[t].partition]++] = pairs[t];
    for (int64_t t = 0; t < count * leaves; t++) {
      const int64_t i = sorted[t].query, p = sorted[t].partition % P, size = x->size[p], first = x->first[p];
      Heap *h = heaps + i;
      points += size;
      for (int64_t g = 0; g * GROUP < size; g++) {
        float score[GROUP];
        const uint8_t *codes = x->codes + (first + g) * 16 * B;
        const float *bias = x->bias ? x->bias + (first + g) * GROUP : 0;
        uint32_t passed;
#ifdef X86
        if (level == 2) passed = group_avx512(codes, table + 16 * B * i, B, base[i] + sorted[t].score, step[i], bias, h->least, score);
        else if (level == 1) passed = group_avx2(codes, table + 16 * B * i, B, base[i] + sorted[t].score, step[i], bias, h->least, score);
        else
#endif
          passed = group_plain(codes, table + 16 * B * i, B, base[i] + sorted[t].score, step[i], bias, h->least, score);
        if (size - g * GROUP < GROUP) passed &= (1u << (size - g * GROUP)) - 1;
        for (; passed; passed &= passed - 1) {
          int bit = __builtin_ctz(passed);
          h->item[h->count++] = packed(score[bit], (uint32_t)((first + g) * GROUP + bit));
        }
        if (h->count + GROUP > h->room) compact(h);
      }
    }
    for (int64_t i = 0; i < count; i++)
      work += finish(x, heaps + i, queries + i * x->d, scaled, k, rescored, seen, out + i * k);
    done[0] += points;
    done[1] += work;
  }
  free(q); free(scaled); free(product); free(base); free(step); free(table); free(items); free(order);
  free(seen); free(start); free(heaps); free(pairs); free(sorted);
  return failed;
}

/* Codes [n, blocks] that minimise |r - c|^2 + (eta - 1) <r - c, u>^2 by coordinate descent from the nearest codewords. */
INLINE int encode_body(const float *residuals, const float *directions, const float *eta, const float *codebook, int64_t n,
                       int64_t blocks, int64_t width, int64_t rounds, uint8_t *codes) {
  float *e = malloc(blocks * 16 * sizeof *e), *p = malloc(blocks * 16 * sizeof *p);
  uint64_t *order = malloc(blocks * sizeof *order);
  int failed = !(e && p && order);
  for (int64_t i = 0; i < n && !failed; i++) {
    const float *r = residuals + i * blocks * width, *u = directions ? directions + i * blocks * width : 0;
    uint8_t *code = codes + i * blocks;
    const float extra = directions ? eta[i] - 1 : 0;
    float total = 0;
    for (int64_t j = 0; j < blocks; j++) {
      float *ej = e + 16 * j, *pj = p + 16 * j, norm = 0;
      for (int c = 0; c < 16; c++) ej[c] = pj[c] = 0;
      for (int64_t t = 0; t < width; t++) {
        const float *word = codebook + (j * width + t) * 16, value = r[j * width + t], along = u ? u[j * width + t] : 0;
        norm += value * value;
        for (int c = 0; c < 16; c++) { float off = value - word[c]; ej[c] += off * off; pj[c] += off * along; }
      }
      int best = 0;
      for (int c = 1; c < 16; c++) if (ej[c] < ej[best]) best = c;
      code[j] = (uint8_t)best;
      total += pj[best];
      order[j] = packed(norm, (uint32_t)j);
    }
    if (extra == 0) continue;
    sort_down(order, blocks);
    for (int64_t round = 0, changed = 1; round < rounds && changed; round++) {
      changed = 0;
      for (int64_t t = 0; t < blocks; t++) {
        const int64_t j = (int64_t)(uint32_t)order[t];
        const float *ej = e + 16 * j, *pj = p + 16 * j, rest = total - pj[code[j]];
        float cost[16];
        for (int c = 0; c < 16; c++) cost[c] = ej[c] + extra * (rest + pj[c]) * (rest + pj[c]);
        int best = code[j];
        for (int c = 0; c < 16; c++) if (cost[c] < cost[best]) best = c;
        if (best != code[j]) { code[j] = (uint8_t)best; total = rest + pj[best]; changed = 1; }
      }
    }
  }
  free(e); free(p); free(order);
  return failed;
}

#define SEARCH const Index *x, const float *q, const float *products, int64_t count, int64_t k, int64_t leaves, int64_t rescored, int64_t *out, int64_t *done
#define ENCODE const float *r, const float *u, const float *eta, const float *book, int64_t n, int64_t blocks, int64_t width, int64_t rounds, uint8_t *codes
#ifdef X86
#define V2 __attribute__((target("avx2,fma")))
#define V3 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
V2 static int search_avx2(SEARCH) { return search_body(x, q, products, count, k, leaves, rescored, out, done, 1); }
V3 static int search_avx512(SEARCH) { return search_body(x, q, products, count, k, leaves, rescored, out, done, 2); }
V2 static int encode_avx2(ENCODE) { return encode_body(r, u, eta, book, n, blocks, width, rounds, codes); }
V3 static int encode_avx512(ENCODE) { return encode_body(r, u, eta, book, n, blocks, width, rounds, codes); }
#endif
int search(SEARCH, int64_t level) {
#ifdef X86
  if (level == 2) return search_avx512(x, q, products, count, k, leaves, rescored, out, done);
  if (level == 1) return search_avx2(x, q, products, count, k, leaves, rescored, out, done);
#endif
  return search_body(x, q, products, count, k, leaves, rescored, out, done, 0);
}
int encode(ENCODE, int64_t level) {
#ifdef X86
  if (level == 2) return encode_avx512(r, u, eta, book, n, blocks, width, rounds, codes);
  if (level == 1) return encode_avx2(r, u, eta, book, n, blocks, width, rounds, codes);
#endif
  return encode_body(r, u, eta, book, n, blocks, width, rounds, codes);
}
"""
