/* Input: pixels of the samples, cropped and mirrored, through the table of mantissas. */
#include <string.h>

#include "backend/cpu/cpu.h"

enum { ROWS_BYTES = 1 << 13, TABLE = 256 };

typedef struct Input {
  int8_t *out;
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

static void input_rows(void *context, size_t thread, size_t item) {
  const Input *in = context;
  const size_t H = (size_t)in->shape.h, row = (size_t)in->shape.w * (size_t)in->shape.c;
  const size_t first = item * in->rows_a_task;
  const size_t end = in->rows - first < in->rows_a_task ? in->rows : first + in->rows_a_task;
  (void)thread;
  for (size_t r = first; r < end; ++r) make_row(in, in->out + r * row, &in->samples[r / H], (ptrdiff_t)(r % H));
}

void niti_cpu_input(NitiBackend *backend, NitiTensor *out, const uint8_t *images, NitiShape source, const NitiSample *samples,
                    const NitiTensor *table) {
  const size_t row = (size_t)out->shape.w * (size_t)out->shape.c;
  Input in = {.out = out->data,
              .shape = out->shape,
              .source = source,
              .images = images,
              .samples = samples,
              .table = table->data,
              .rows = (size_t)out->shape.n * (size_t)out->shape.h,
              .rows_a_task = row < ROWS_BYTES ? ROWS_BYTES / row : 1};
  niti_threads_run(niti_cpu(backend)->threads, input_rows, &in, (in.rows + in.rows_a_task - 1) / in.rows_a_task);
  *out->exponent = *table->exponent;
}
