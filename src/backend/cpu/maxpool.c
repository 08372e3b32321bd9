/* Max-pool, forward and backward: the first maximum of a window wins and receives the window's delta. */
#include <assert.h>
#include <string.h>

#include "backend/cpu/pool.h"

enum {
  ROWS_BYTES = 1 << 14, /* approximate output of one task */
  LANES = 16,           /* channels at a time, a compile-time constant */
};

typedef struct Maxpool {
  NitiPool p;
  int8_t *out;
  const int8_t *in;
  uint8_t *winner;          /* forward */
  const uint8_t *winner_in; /* backward */
  const int8_t *mask;       /* backward: NULL, or positive where the deltas count */
  size_t rows, rows_a_task;
} Maxpool;

static void run_rows(NitiBackend *backend, NitiTask task, Maxpool *m, size_t rows, size_t row_bytes) {
  m->rows = rows;
  m->rows_a_task = row_bytes < ROWS_BYTES ? ROWS_BYTES / (row_bytes ? row_bytes : 1) : 1;
  niti_threads_run(niti_cpu(backend)->threads, task, m, (rows + m->rows_a_task - 1) / m->rows_a_task);
}

static size_t rows_end(const Maxpool *m, size_t first) {
  return m->rows - first < m->rows_a_task ? m->rows : first + m->rows_a_task;
}

static bool is_2x2(const NitiPool *p) {
  return p->kh == 2 && p->kw == 2 && p->stride_h == 2 && p->stride_w == 2 && p->pad_h == 0 && p->pad_w == 0;
}

/* ---- forward ---- */

static void take_first(int8_t *restrict y, uint8_t *restrict winner, const int8_t *restrict x, size_t C, uint8_t position) {
  memcpy(y, x, C);
  memset(winner, position, C);
}

/* A later cell wins only where it is larger: the first of equals stays. */
static void take_larger(int8_t *restrict y, uint8_t *restrict winner, const int8_t *restrict x, size_t C, uint8_t position) {
  for (size_t c = 0; c < C; ++c) {
    winner[c] = x[c] > y[c] ? position : winner[c];
    y[c] = x[c] > y[c] ? x[c] : y[c];
  }
}

/* One window, channels first .. first + count - 1; row: bytes of an input row. */
static inline void window_2x2(int8_t *restrict y, uint8_t *restrict winner, const int8_t *restrict x, size_t C, size_t row,
                              size_t first, size_t count) {
  for (size_t c = first; c < first + count; ++c) {
    const int8_t a = x[c], b = x[C + c], d = x[row + c], e = x[row + C + c];
    const int8_t upper = b > a ? b : a, lower = e > d ? e : d;
    const uint8_t at_upper = b > a, at_lower = e > d ? 3 : 2;
    y[c] = lower > upper ? lower : upper;
    winner[c] = lower > upper ? at_lower : at_upper;
  }
}

static void row_2x2(int8_t *y, uint8_t *winner, const int8_t *x, const NitiPool *p) {
  const size_t C = (size_t)p->c, row = (size_t)p->w * C;
  for (size_t ow = 0; ow < (size_t)p->ow; ++ow, y += C, winner += C, x += 2 * C) {
    size_t c = 0;
    for (; c + LANES <= C; c += LANES) window_2x2(y, winner, x, C, row, c, LANES);
    if (c == C) continue;
    if (C > LANES) {
      window_2x2(y, winner, x, C, row, C - LANES, LANES); /* recomputes some of them: cheaper than one by one */
    } else {
      window_2x2(y, winner, x, C, row, 0, C);
    }
  }
}

static void row_any(int8_t *y, uint8_t *winner, const int8_t *image, const NitiPool *p, int32_t oh) {
  const size_t C = (size_t)p->c;
  for (int32_t ow = 0; ow < p->ow; ++ow, y += C, winner += C) {
    bool any = false;
    for (int32_t kh = 0; kh < p->kh; ++kh) {
      const int32_t h = oh * p->stride_h - p->pad_h + kh;
      if (h < 0 || h >= p->h) continue;
      for (int32_t kw = 0; kw < p->kw; ++kw) {
        const int32_t w = ow * p->stride_w - p->pad_w + kw;
        if (w < 0 || w >= p->w) continue;
        const int8_t *x = image + ((size_t)h * (size_t)p->w + (size_t)w) * C;
        const uint8_t position = (uint8_t)(kh * p->kw + kw);
        if (any) {
          take_larger(y, winner, x, C, position);
        } else {
          take_first(y, winner, x, C, position);
        }
        any = true;
      }
    }
  }
}

static void forward_rows(void *context, size_t thread, size_t item) {
  const Maxpool *m = context;
  const NitiPool *p = &m->p;
  const size_t C = (size_t)p->c, OH = (size_t)p->oh, in_row = (size_t)p->w * C, out_row = (size_t)p->ow * C;
  const bool fast = is_2x2(p);
  const size_t first = item * m->rows_a_task, end = rows_end(m, first);
  (void)thread;
  for (size_t r = first; r < end; ++r) {
    const int8_t *image = m->in + r / OH * (size_t)p->h * in_row;
    if (fast) {
      row_2x2(m->out + r * out_row, m->winner + r * out_row, image + r % OH * 2 * in_row, p);
    } else {
      row_any(m->out + r * out_row, m->winner + r * out_row, image, p, (int32_t)(r % OH));
    }
  }
}

void niti_cpu_maxpool_forward(NitiBackend *backend, NitiTensor *y, uint8_t *winner, const NitiTensor *x, const NitiPool *pool) {
  Maxpool m = {.p = *pool, .out = y->data, .in = x->data, .winner = winner};
  run_rows(backend, forward_rows, &m, (size_t)pool->n * (size_t)pool->oh, (size_t)pool->ow * (size_t)pool->c);
  *y->exponent = *x->exponent;
}

/* ---- backward, windows apart: every cell has at most one delta, so nothing is summed and no shift is needed ---- */

static void pass_if_won(int8_t *restrict dx, const int8_t *restrict dy, const uint8_t *restrict winner,
                        const int8_t *restrict mask, size_t C, uint8_t position) {
  for (size_t c = 0; c < C; ++c) dx[c] = (int8_t)(dy[c] & -(winner[c] == position && (!mask || mask[c] > 0)));
}

/* The four cells of channels first .. first + count - 1 of one window; row: bytes of an input row. */
static inline void window_back_2x2(int8_t *restrict dx, const int8_t *restrict dy, const uint8_t *restrict winner,
                                   const int8_t *restrict mask, size_t C, size_t row, size_t first, size_t count) {
  for (size_t c = first; c < first + count; ++c) {
    const int8_t d = mask ? (int8_t)(dy[c] & -(mask[c] > 0)) : dy[c];
    const uint8_t won = winner[c];
    dx[c] = (int8_t)(d & -(won == 0));
    dx[C + c] = (int8_t)(d & -(won == 1));
    dx[row + c] = (int8_t)(d & -(won == 2));
    dx[row + C + c] = (int8_t)(d & -(won == 3));
  }
}

static void window_back(int8_t *dx, const int8_t *dy, const uint8_t *winner, const int8_t *mask, size_t C, size_t row) {
  size_t c = 0;
  for (; c + LANES <= C; c += LANES) window_back_2x2(dx, dy, winner, mask, C, row, c, LANES);
  if (c == C) return;
  if (C > LANES) {
    window_back_2x2(dx, dy, winner, mask, C, row, C - LANES, LANES);
  } else {
    window_back_2x2(dx, dy, winner, mask, C, row, 0, C);
  }
}

/* Both input rows of one row of 2x2 windows. */
static void rows_back_2x2(int8_t *dx, const int8_t *dy, const uint8_t *winner, const int8_t *mask, const NitiPool *p) {
  const size_t C = (size_t)p->c, row = (size_t)p->w * C, used = 2 * (size_t)p->ow * C;
  if (row > used) {
    memset(dx + used, 0, row - used);
    memset(dx + row + used, 0, row - used);
  }
  for (size_t ow = 0; ow < (size_t)p->ow; ++ow) {
    window_back(dx + 2 * ow * C, dy + ow * C, winner + ow * C, mask ? mask + ow * C : NULL, C, row);
  }
}

static void backward_2x2(void *context, size_t thread, size_t item) {
  const Maxpool *m = context;
  const NitiPool *p = &m->p;
  const size_t C = (size_t)p->c, OH = (size_t)p->oh, H = (size_t)p->h, in_row = (size_t)p->w * C, out_row = (size_t)p->ow * C;
  const size_t first = item * m->rows_a_task, end = rows_end(m, first);
  (void)thread;
  for (size_t r = first; r < end; ++r) {
    const size_t oh = r % OH;
    int8_t *dx = m->out + (r / OH * H + 2 * oh) * in_row;
    rows_back_2x2(dx, m->in + r * out_row, m->winner_in + r * out_row, m->mask ? m->mask + r * out_row : NULL, p);
    if (oh + 1 == OH && H > 2 * OH) memset(dx + 2 * in_row, 0, (H - 2 * OH) * in_row);
  }
}

static void backward_apart(void *context, size_t thread, size_t item) {
  const Maxpool *m = context;
  const NitiPool *p = &m->p;
  const size_t C = (size_t)p->c, H = (size_t)p->h;
  const size_t first = item * m->rows_a_task, end = rows_end(m, first);
  (void)thread;
  for (size_t r = first; r < end; ++r) {
    const int32_t h = (int32_t)(r % H);
    const NitiWindows in_h = niti_windows(h + p->pad_h, p->kh, p->stride_h, p->oh);
    for (int32_t w = 0; w < p->w; ++w) {
      int8_t *dx = m->out + (r * (size_t)p->w + (size_t)w) * C;
      const NitiWindows in_w = niti_windows(w + p->pad_w, p->kw, p->stride_w, p->ow);
      if (in_h.last < in_h.first || in_w.last < in_w.first) {
        memset(dx, 0, C);
        continue;
      }
      const size_t window = ((r / H * (size_t)p->oh + (size_t)in_h.first) * (size_t)p->ow + (size_t)in_w.first) * C;
      const int32_t kh = h + p->pad_h - in_h.first * p->stride_h, kw = w + p->pad_w - in_w.first * p->stride_w;
      pass_if_won(dx, m->in + window, m->winner_in + window, m->mask ? m->mask + window : NULL, C, (uint8_t)(kh * p->kw + kw));
    }
  }
}

/* ---- backward, windows that overlap ---- */

static void add_if_won(int32_t *restrict acc, const int8_t *restrict dy, const uint8_t *restrict winner, size_t count,
                       uint8_t position) {
  for (size_t c = 0; c < count; ++c) acc[c] += (int8_t)(dy[c] & -(winner[c] == position));
}

static void gather_won(int32_t *acc, const void *context, int32_t n, int32_t h, int32_t w, int32_t c, int32_t count) {
  const Maxpool *m = context;
  const NitiPool *p = &m->p;
  const NitiWindows in_h = niti_windows(h + p->pad_h, p->kh, p->stride_h, p->oh);
  const NitiWindows in_w = niti_windows(w + p->pad_w, p->kw, p->stride_w, p->ow);
  memset(acc, 0, (size_t)count * sizeof *acc);
  for (int32_t oh = in_h.first; oh <= in_h.last; ++oh) {
    const int32_t kh = h + p->pad_h - oh * p->stride_h;
    for (int32_t ow = in_w.first; ow <= in_w.last; ++ow) {
      const int32_t kw = w + p->pad_w - ow * p->stride_w;
      const size_t row = (size_t)n * (size_t)p->oh + (size_t)oh;
      const size_t at = (row * (size_t)p->ow + (size_t)ow) * (size_t)p->c + (size_t)c;
      add_if_won(acc, m->in + at, m->winner_in + at, (size_t)count, (uint8_t)(kh * p->kw + kw));
    }
  }
}

void niti_cpu_maxpool_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const uint8_t *winner,
                               const NitiTensor *mask, const NitiPool *pool, const NitiRequantise *rq) {
  const NitiPool *p = pool;
  const size_t row = (size_t)p->w * (size_t)p->c;
  Maxpool m = {.p = *p, .out = dx->data, .in = dy->data, .winner_in = winner, .mask = mask ? mask->data : NULL};
  int shift = 0;
  assert(!mask || niti_pool_apart(p));
  if (is_2x2(p)) {
    run_rows(backend, backward_2x2, &m, (size_t)p->n * (size_t)p->oh, 2 * row);
  } else if (niti_pool_apart(p)) {
    run_rows(backend, backward_apart, &m, (size_t)p->n * (size_t)p->h, row);
  } else {
    const NitiShape shape = {p->n, p->h, p->w, p->c};
    shift = niti_pool_requantise(niti_cpu(backend), dx->data, shape, rq, gather_won, &m);
  }
  *dx->exponent = *dy->exponent + shift;
}
