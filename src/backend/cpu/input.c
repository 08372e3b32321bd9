/* Input: pixels of the samples, cropped or scaled, mirrored and coloured, through the table of mantissas. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/scale.h"

enum { ROWS_BYTES = 1 << 13, TABLE = 256, PIECE = 512, MIX_BYTES = 1024 };
enum { PIECE_BYTES = NITI_CHANNELS_MAX, NARROW_MAX = UINT32_MAX / 511 }; /* totals of weights with which sums fit 32 bits */

typedef struct Input {
  int8_t *out, *ahead; /* ahead: NULL, or the image that is mixed into the last one */
  NitiShape shape, source;
  const uint8_t *images;
  const NitiSample *samples;
  const int8_t *table;
  size_t rows, rows_a_task;
} Input;

/* out[count][C] from pixels `step` pixels apart: 1, or -1 if mirrored. */
static void look_up(int8_t *restrict out, const uint8_t *restrict pixels, ptrdiff_t count, ptrdiff_t step, ptrdiff_t C,
                    const int8_t *restrict table) {
  if (C == 1) {
    for (ptrdiff_t i = 0; i < count; ++i) out[i] = table[pixels[i * step]];
  } else if (C == 3) {
    for (ptrdiff_t i = 0; i < count; ++i, out += 3) {
      const uint8_t *p = pixels + i * step * 3;
      out[0] = table[p[0]];
      out[1] = table[TABLE + p[1]];
      out[2] = table[2 * TABLE + p[2]];
    }
  } else {
    for (ptrdiff_t i = 0; i < count; ++i) {
      for (ptrdiff_t c = 0; c < C; ++c) *out++ = table[c * TABLE + pixels[i * step * C + c]];
    }
  }
}

/* Pixels outside the source are raw 0. */
static void fill_outside(int8_t *out, ptrdiff_t count, ptrdiff_t C, const int8_t *table) {
  for (ptrdiff_t i = 0; i < count; ++i) {
    for (ptrdiff_t c = 0; c < C; ++c) *out++ = table[c * TABLE];
  }
}

static ptrdiff_t clamp(ptrdiff_t v, ptrdiff_t low, ptrdiff_t high) { return v < low ? low : v > high ? high : v; }

static void make_row(const Input *in, int8_t *out, const NitiSample *sample, ptrdiff_t h) {
  const ptrdiff_t W = in->shape.w, C = in->shape.c, SH = in->source.h, SW = in->source.w;
  const ptrdiff_t source_h = h + sample->dy, dx = sample->dx;
  if (source_h < 0 || source_h >= SH) {
    fill_outside(out, W, C, in->table);
    return;
  }
  /* Columns begin .. end - 1 of the window, unmirrored, are inside. */
  const ptrdiff_t begin = clamp(-dx, 0, W), end = clamp(SW - dx, begin, W);
  const uint8_t *row = in->images + (((size_t)sample->image * (size_t)SH + (size_t)source_h) * (size_t)SW) * (size_t)C;
  const ptrdiff_t before = sample->flip ? W - end : begin, inside = end - begin;
  fill_outside(out, before, C, in->table);
  if (inside > 0) {
    const ptrdiff_t first = sample->flip ? end - 1 + dx : begin + dx;
    look_up(out + before * C, row + first * C, inside, sample->flip ? -1 : 1, C, in->table);
  }
  fill_outside(out + (before + inside) * C, W - before - inside, C, in->table);
}

/* Some columns of a sample's rows as pixels, before the table. */
typedef struct Piece {
  const Input *in;
  const NitiSample *sample;
  const uint8_t *pixels;  /* of the source image; of scaled samples from the rectangle's first pixel on */
  ptrdiff_t first, count; /* columns of the window */
  NitiTaps taps[PIECE];   /* of scaled samples, by column */
  uint64_t total;         /* of the weights of a pixel */
  int32_t known[2];       /* which source row is in rows[j & 1]; -1: none */
  uint32_t rows[2][PIECE_BYTES], sums[PIECE_BYTES];
  uint8_t out[PIECE_BYTES]; /* [count][C] */
} Piece;

static ptrdiff_t source_column(const Piece *p, ptrdiff_t i) {
  return p->sample->flip ? p->in->shape.w - 1 - p->first - i : p->first + i;
}

/* out[count][C] from pixels `step` pixels apart: 1, or -1 if mirrored. */
static void copy_pixels(uint8_t *restrict out, const uint8_t *restrict pixels, ptrdiff_t count, ptrdiff_t step, ptrdiff_t C) {
  if (step == 1) {
    memcpy(out, pixels, (size_t)(count * C));
  } else if (C == 3) {
    for (ptrdiff_t i = 0; i < count; ++i) {
      for (ptrdiff_t c = 0; c < 3; ++c) out[3 * i + c] = pixels[c - 3 * i];
    }
  } else {
    for (ptrdiff_t i = 0; i < count; ++i) memcpy(out + i * C, pixels - i * C, (size_t)C);
  }
}

/* Window row h, not scaled. */
static void copy_row(Piece *p, ptrdiff_t h) {
  const ptrdiff_t C = p->in->shape.c, SH = p->in->source.h, SW = p->in->source.w, y = h + p->sample->dy;
  const ptrdiff_t step = p->sample->flip ? -1 : 1, x = source_column(p, 0) + p->sample->dx; /* of the piece's first column */
  /* Columns begin .. end - 1 of the piece are inside. */
  const ptrdiff_t begin = clamp(step > 0 ? -x : x - SW + 1, 0, p->count);
  const ptrdiff_t end = y < 0 || y >= SH ? begin : clamp(step > 0 ? SW - x : x + 1, begin, p->count);
  memset(p->out, 0, (size_t)(p->count * C));
  if (begin < end) copy_pixels(p->out + begin * C, p->pixels + (y * SW + x + step * begin) * C, end - begin, step, C);
}

static const uint8_t *source_row(const Piece *p, int32_t j) {
  return p->pixels + (ptrdiff_t)j * p->in->source.w * p->in->shape.c;
}

/* Columns between two source pixels each, of C channels, a constant where it is inlined. */
static inline __attribute__((always_inline)) void mix_columns(uint32_t *restrict out, const uint8_t *restrict row,
                                                              const NitiTaps *restrict taps, ptrdiff_t count, ptrdiff_t C) {
  for (ptrdiff_t i = 0; i < count; ++i, out += C) {
    const uint8_t *first = row + taps[i].first * C, *last = row + taps[i].last * C;
    const uint32_t head = taps[i].head, tail = taps[i].tail;
    for (ptrdiff_t c = 0; c < C; ++c) out[c] = head * first[c] + tail * last[c];
  }
}

static void sum_columns(uint32_t *out, const uint8_t *row, const Piece *p) {
  const ptrdiff_t C = p->in->shape.c, count = p->count;
  if (p->sample->w < p->in->shape.w) {
    if (C == 3)
      mix_columns(out, row, p->taps, count, 3);
    else
      mix_columns(out, row, p->taps, count, C);
    return;
  }
  for (ptrdiff_t i = 0; i < count; ++i) {
    for (ptrdiff_t c = 0; c < C; ++c) *out++ = niti_taps_sum(&p->taps[i], row + c, C);
  }
}

/* Source row j, summed along its columns. Rows are asked for in ascending order, so two of them are worth keeping. */
static const uint32_t *summed_row(Piece *p, int32_t j) {
  uint32_t *out = p->rows[j & 1];
  if (p->known[j & 1] != j) sum_columns(out, source_row(p, j), p);
  p->known[j & 1] = j;
  return out;
}

/* out[count] = sums / total, rounded: a quotient by the reciprocal is at most one too small. */
static void divide(uint8_t *restrict out, const uint32_t *restrict sums, ptrdiff_t count, uint32_t total) {
  const uint32_t divisor = 2 * total, reciprocal = UINT32_MAX / divisor;
  for (ptrdiff_t i = 0; i < count; ++i) {
    const uint32_t n = 2 * sums[i] + total, q = (uint32_t)(((uint64_t)n * reciprocal) >> 32);
    out[i] = (uint8_t)(q + (n - q * divisor >= divisor));
  }
}

static void scale_narrow(Piece *p, const NitiTaps *taps) {
  const ptrdiff_t count = p->count * p->in->shape.c;
  memset(p->sums, 0, (size_t)count * sizeof *p->sums);
  for (int32_t j = taps->first; j <= taps->last; ++j) {
    const uint32_t weight = niti_taps_weight(taps, j);
    const uint32_t *restrict row = summed_row(p, j);
    for (ptrdiff_t i = 0; i < count; ++i) p->sums[i] += weight * row[i];
  }
  divide(p->out, p->sums, count, (uint32_t)p->total);
}

/* Of images so large that sums need 64 bits. */
static void scale_wide(Piece *p, const NitiTaps *taps) {
  const ptrdiff_t C = p->in->shape.c;
  for (ptrdiff_t i = 0; i < p->count * C; ++i) {
    uint64_t sum = 0;
    for (int32_t j = taps->first; j <= taps->last; ++j)
      sum += (uint64_t)niti_taps_weight(taps, j) * niti_taps_sum(&p->taps[i / C], source_row(p, j) + i % C, C);
    p->out[i] = (uint8_t)((2 * sum + p->total) / (2 * p->total));
  }
}

/* The grey of some pixels, once for each channel; then all channels at once. */
static void colour_pixels(uint8_t *restrict pixels, ptrdiff_t count, NitiColours colours) {
  enum { SOME = 64 };
  uint8_t grey[3 * SOME];
  for (; count > 0; count -= SOME, pixels += (ptrdiff_t)3 * SOME) {
    const ptrdiff_t some = count < SOME ? count : SOME;
    for (ptrdiff_t i = 0; i < some; ++i) {
      const uint8_t y = (uint8_t)niti_grey(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
      grey[3 * i] = grey[3 * i + 1] = grey[3 * i + 2] = y;
    }
    for (ptrdiff_t i = 0; i < 3 * some; ++i) pixels[i] = niti_coloured(colours, pixels[i], grey[i]);
  }
}

static void colour_greys(uint8_t *pixels, ptrdiff_t count, NitiColours colours) {
  for (ptrdiff_t i = 0; i < count; ++i) pixels[i] = niti_coloured(colours, pixels[i], pixels[i]);
}

static void make_piece_row(Piece *p, ptrdiff_t h) {
  const Input *in = p->in;
  const NitiSample *sample = p->sample;
  if (sample->h > 0) {
    const NitiTaps taps = niti_taps(h, sample->h, in->shape.h);
    if (p->total <= NARROW_MAX)
      scale_narrow(p, &taps);
    else
      scale_wide(p, &taps);
  } else {
    copy_row(p, h);
  }
  if (sample->coloured && in->shape.c == 3) colour_pixels(p->out, p->count, sample->colours);
  if (sample->coloured && in->shape.c == 1) colour_greys(p->out, p->count, sample->colours);
}

/* Rows h .. end - 1 of a sample that is scaled or coloured; out: its first element. */
static void make_rows(const Input *in, int8_t *out, const NitiSample *sample, ptrdiff_t h, ptrdiff_t end) {
  const ptrdiff_t W = in->shape.w, C = in->shape.c, most = PIECE_BYTES / C < PIECE ? PIECE_BYTES / C : PIECE;
  Piece p;
  p.in = in;
  p.sample = sample;
  p.pixels = in->images + (size_t)sample->image * niti_shape_image(in->source);
  if (sample->h > 0) p.pixels += ((ptrdiff_t)sample->dy * in->source.w + sample->dx) * C;
  p.total = niti_taps_total(sample->h, in->shape.h) * niti_taps_total(sample->w, W);
  for (p.first = 0; p.first < W; p.first += p.count) {
    p.count = W - p.first < most ? W - p.first : most;
    p.known[0] = p.known[1] = -1;
    for (ptrdiff_t i = 0; sample->h > 0 && i < p.count; ++i) p.taps[i] = niti_taps(source_column(&p, i), sample->w, W);
    for (ptrdiff_t row = h; row < end; ++row) {
      make_piece_row(&p, row);
      look_up(out + (row * W + p.first) * C, p.out, p.count, 1, C, in->table);
    }
  }
}

/* The square's part of row h. */
static void cut_row(const Input *in, int8_t *row, const NitiSample *sample, ptrdiff_t h) {
  const ptrdiff_t W = in->shape.w, C = in->shape.c, cut = sample->cut;
  const ptrdiff_t begin = clamp(sample->cut_x, 0, W), end = clamp(sample->cut_x + cut, begin, W);
  if (h >= sample->cut_y && h < sample->cut_y + cut) memset(row + begin * C, 0, (size_t)((end - begin) * C));
}

/* Rows h .. end - 1 of image n. */
static void make_image(const Input *in, size_t n, ptrdiff_t h, ptrdiff_t end) {
  const NitiSample *sample = &in->samples[n];
  const size_t row = (size_t)in->shape.w * (size_t)in->shape.c;
  int8_t *out = n < (size_t)in->shape.n ? in->out + n * (size_t)in->shape.h * row : in->ahead;
  if (sample->h > 0 || sample->coloured) {
    make_rows(in, out, sample, h, end);
  } else {
    for (ptrdiff_t r = h; r < end; ++r) make_row(in, out + (size_t)r * row, sample, r);
  }
  for (ptrdiff_t r = h; sample->cut > 0 && r < end; ++r) cut_row(in, out + (size_t)r * row, sample, r);
}

static void input_rows(void *context, size_t thread, size_t item) {
  const Input *in = context;
  const size_t H = (size_t)in->shape.h;
  const size_t first = item * in->rows_a_task;
  const size_t end = in->rows - first < in->rows_a_task ? in->rows : first + in->rows_a_task;
  (void)thread;
  for (size_t r = first, next; r < end; r = next) {
    const size_t image = r / H;
    next = (image + 1) * H < end ? (image + 1) * H : end;
    make_image(in, image, (ptrdiff_t)(r - image * H), (ptrdiff_t)(next - image * H));
  }
}

/* Mixes each image with the next one of the batch, some positions of all images at a time. */
static void mix_positions(void *context, size_t thread, size_t item) {
  const Input *in = context;
  const size_t image = niti_shape_image(in->shape), first = item * MIX_BYTES, N = (size_t)in->shape.n;
  const size_t count = image - first < MIX_BYTES ? image - first : MIX_BYTES;
  int8_t begin[MIX_BYTES]; /* of the first image as it was */
  (void)thread;
  memcpy(begin, in->out + first, count);
  for (size_t n = 0; n < N; ++n) {
    int8_t *restrict own = in->out + n * image + first;
    const int8_t *restrict next = n + 1 < N ? own + image : in->ahead ? in->ahead + first : begin;
    const int32_t share = in->samples[n].share;
    for (size_t i = 0; share > 0 && i < count; ++i) own[i] = niti_mixed(own[i], next[i], share);
  }
}

static bool has_mixed(const NitiSample *samples, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    if (samples[i].share > 0) return true;
  }
  return false;
}

void niti_cpu_input(NitiBackend *backend, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiSample *samples,
                    const NitiTensor *table, bool changes) {
  const size_t row = (size_t)out->shape.w * (size_t)out->shape.c;
  Input in = {.out = out->data,
              .shape = out->shape,
              .source = source,
              .images = images,
              .samples = samples,
              .table = table->data,
              .ahead = backend->together.ahead ? (int8_t *)niti_cpu(backend)->workspace : NULL,
              .rows = ((size_t)out->shape.n + backend->together.ahead) * (size_t)out->shape.h,
              .rows_a_task = row < ROWS_BYTES ? ROWS_BYTES / row : 1};
  NitiThreads *threads = niti_cpu(backend)->threads;
  niti_threads_run(threads, input_rows, &in, (in.rows + in.rows_a_task - 1) / in.rows_a_task);
  if (changes && has_mixed(samples, out->shape.n))
    niti_threads_run(threads, mix_positions, &in, (niti_shape_image(out->shape) + MIX_BYTES - 1) / MIX_BYTES);
  *out->exponent = *table->exponent;
}
