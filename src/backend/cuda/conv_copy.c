/* Convolutions of channels that no kernel takes well: which copies are made of their operands. */
#include "backend/cuda/conv_copy.h"

#include "backend/cuda/mma_few.h"
#include "backend/cuda/wgmma.h"

typedef bool (*Serves)(const NitiConv *);

enum {
  UNFOLD_CHANNELS = 15,
  UNFOLD_SUM = 256,       /* bytes of a window */
  UNFOLD_LEAST = 4000000, /* picoseconds of such a copy; then for each thousand bytes of it: */
  UNFOLD_THOUSAND = 700,
  PAD_CHANNELS = 8, /* up to so many gathering is as fast: less than twice as many are padded */
  PAD_PHASES = 2,
  PAD_SUM = 32,   /* forward: up to so long a sum mma_first.cu or mma_few.cu may do */
  STACK_MOST = 2, /* the sum may become so many times as long */
};

static int32_t parts_of(int32_t all, int32_t part) { return (all + part - 1) / part; }

static int64_t sum_of(const NitiConv *s) { return (int64_t)s->kh * s->kw * s->c; }

static NitiConv stacked_of(const NitiConv *s) {
  NitiConv stacked = *s;
  stacked.c = parts_of(s->stride_h * s->stride_w * s->c, 16) * 16;
  stacked.kh = parts_of(s->kh, s->stride_h);
  stacked.kw = parts_of(s->kw, s->stride_w);
  stacked.h = s->oh + stacked.kh - 1;
  stacked.w = s->ow + stacked.kw - 1;
  stacked.stride_h = stacked.stride_w = 1;
  stacked.pad_h = stacked.pad_w = 0;
  return stacked;
}

/* Forward alone. */
static bool is_stacked(const NitiConv *s) {
  if (niti_conv_grouped(s) || s->c % 4 == 0 || s->c > PAD_CHANNELS || sum_of(s) <= PAD_SUM) return false;
  if (s->stride_h * s->stride_w == 1 || s->kh < s->stride_h || s->kw < s->stride_w) return false;
  const NitiConv stacked = stacked_of(s);
  return sum_of(&stacked) <= STACK_MOST * sum_of(s) && (int64_t)stacked.n * stacked.h * stacked.w * (stacked.c / 16) < INT32_MAX;
}

static NitiConv unfolded_of(const NitiConv *s) {
  NitiConv unfolded = *s;
  const int32_t sum = (int32_t)sum_of(s), chunk = NITI_WGMMA_CHUNK;
  unfolded.c = parts_of(sum, 16) * 16;
  if (4 * unfolded.c < 3 * parts_of(sum, chunk) * chunk) unfolded.c = parts_of(sum, chunk) * chunk;
  unfolded.kh = unfolded.kw = 1;
  unfolded.h = s->oh;
  unfolded.w = s->ow;
  unfolded.stride_h = unfolded.stride_w = 1;
  unfolded.pad_h = unfolded.pad_w = 0;
  return unfolded;
}

/* What the tiles of mma.sync take for few channels in picoseconds, as measured on an H200 beside the models of its other ways:
 * about twice as long where they gather single bytes. */
static int64_t tiles_time(const NitiCuda *cuda, const NitiConv *s) {
  NitiConv other = *s;
  int64_t time;
  other.c = 16;
  if (is_stacked(s)) other = stacked_of(s);
  (void)niti_cuda_conv_mma.choose(cuda, &other, NITI_FORWARD, &time);
  return is_stacked(s) || s->c > PAD_CHANNELS || time == INT64_MAX ? time : 2 * time;
}

/* Forward alone: whether mma_first.cu or mma_few.cu takes no longer, which need no copies. */
static bool gathers_windows(const NitiCuda *cuda, const NitiConv *s) {
  const int64_t time = niti_conv_grouped(s) ? INT64_MAX : niti_mma_windows_time(s, cuda->multiprocessors);
  return time < INT64_MAX && time <= tiles_time(cuda, s);
}

static int64_t few_channels_time(const NitiCuda *cuda, const NitiConv *s) {
  return gathers_windows(cuda, s) ? niti_mma_windows_time(s, cuda->multiprocessors) : tiles_time(cuda, s);
}

/* Forward alone: whether it may be unfolded, whatever the number of images. */
static bool unfolds(const NitiCuda *cuda, const NitiConv *s) {
  if (cuda->family != NITI_CUDA_WGMMA || niti_conv_grouped(s) || s->c > UNFOLD_CHANNELS || sum_of(s) > UNFOLD_SUM) return false;
  if (s->kh * s->kw == 1 && s->stride_h == 1 && s->stride_w == 1) return false;
  const NitiConv unfolded = unfolded_of(s);
  return niti_cuda_conv_wgmma.serves_forward(&unfolded);
}

/* And whether copying and wgmma are expected to take less time than mma.sync. */
static bool is_unfolded(const NitiCuda *cuda, const NitiConv *s) {
  if (!unfolds(cuda, s)) return false;
  const NitiConv unfolded = unfolded_of(s);
  const int64_t bytes = (int64_t)s->n * s->oh * s->ow * unfolded.c;
  int64_t wgmma;
  if (bytes / 16 >= INT32_MAX) return false;
  (void)niti_cuda_conv_wgmma.choose(cuda, &unfolded, NITI_FORWARD, &wgmma);
  return wgmma + UNFOLD_LEAST + bytes * UNFOLD_THOUSAND / 1000 < few_channels_time(cuda, s) / 100 * NITI_CONV_MMA_MOST;
}

static bool is_padded(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  const int32_t channels = backward ? s->k : s->c;
  const Serves serves = backward ? niti_cuda_conv_wgmma.serves_backward : niti_cuda_conv_wgmma.serves_forward;
  const bool phases = backward && s->stride_h * s->stride_w > 1; /* whose gathering tables are many */
  if (niti_conv_grouped(s) || channels % 16 == 0 || channels <= (phases ? PAD_PHASES : PAD_CHANNELS)) return false;
  if (!backward && sum_of(s) <= PAD_SUM) return false;
  return cuda->family != NITI_CUDA_WGMMA || !serves(s);
}

static NitiConv padded_of(const NitiConv *s, bool backward) {
  NitiConv padded = *s;
  if (backward)
    padded.k = parts_of(s->k, 16) * 16;
  else
    padded.c = parts_of(s->c, 16) * 16;
  return padded;
}

NitiCopied niti_conv_copied(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  if (!backward && is_unfolded(cuda, s)) return (NitiCopied){NITI_COPY_UNFOLDED, unfolded_of(s)};
  if (!backward && gathers_windows(cuda, s)) return (NitiCopied){NITI_COPY_NONE, *s};
  if (!backward && is_stacked(s)) return (NitiCopied){NITI_COPY_STACKED, stacked_of(s)};
  if (is_padded(cuda, s, backward)) return (NitiCopied){NITI_COPY_PADDED, padded_of(s, backward)};
  return (NitiCopied){NITI_COPY_NONE, *s};
}

static NitiShape input_of(const NitiConv *s, bool backward) {
  return backward ? (NitiShape){s->n, s->oh, s->ow, s->k} : (NitiShape){s->n, s->h, s->w, s->c};
}

static size_t weights_of(const NitiConv *s) { return (size_t)s->k * (size_t)s->kh * (size_t)s->kw * (size_t)s->c; }

/* Of the convolution itself, then the copies of the input and of the weights. */
static size_t copied_workspace(const NitiCuda *cuda, const NitiConv *copied, bool backward) {
  return niti_blocked_align(niti_cuda_families_workspace(cuda, copied, backward ? NITI_BACKWARD : NITI_FORWARD)) +
         niti_blocked_align(niti_shape_count(input_of(copied, backward))) + (backward ? 0 : weights_of(copied));
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

size_t niti_conv_copies_workspace(const NitiCuda *cuda, const NitiConv *s, bool backward) {
  size_t most = 0;
  if (is_padded(cuda, s, backward)) {
    const NitiConv padded = padded_of(s, backward);
    most = larger(most, copied_workspace(cuda, &padded, backward));
  }
  if (!backward && is_stacked(s)) {
    const NitiConv stacked = stacked_of(s);
    most = larger(most, copied_workspace(cuda, &stacked, false));
  }
  if (!backward && unfolds(cuda, s)) {
    const NitiConv unfolded = unfolded_of(s);
    most = larger(most, copied_workspace(cuda, &unfolded, false));
  }
  return most;
}

/* weights: NULL where they are not copied. */
static void pad(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                const NitiConv *padded, bool backward) {
  const NitiShape from = input_of(s, backward), to = input_of(padded, backward);
  const size_t taps = (size_t)s->k * (size_t)s->kh * (size_t)s->kw;
  const NitiPad pads[2] = {
      {data, in->data, niti_shape_count(from) / (size_t)from.c, (size_t)from.c, (size_t)to.c},
      {weights, w->data, taps, (size_t)s->c, (size_t)padded->c},
  };
  niti_cuda_pad(cuda, pads, weights ? 2 : 1);
}

/* Blocks of kh by kw pixels become pixels; a filter is an image of taps. */
static void stack(NitiCuda *cuda, int8_t *data, int8_t *weights, const NitiTensor *in, const NitiTensor *w, const NitiConv *s,
                  const NitiConv *t, int32_t kh, int32_t kw) {
  const NitiStack stacks[2] = {
      {data, in->data, s->n, s->h, s->w, s->c, kh, kw, s->stride_h, s->stride_w, s->pad_h, s->pad_w, t->h, t->w, t->c},
      {weights, w->data, s->k, s->kh, s->kw, s->c, kh, kw, kh, kw, 0, 0, t->kh, t->kw, t->c},
  };
  niti_cuda_stack(cuda, stacks, weights ? 2 : 1);
}

void niti_conv_copy(NitiCuda *cuda, NitiTensor *in, NitiTensor *w, const NitiConv *s, const NitiCopied *how, bool backward,
                    bool weights) {
  const NitiConv *copied = &how->shape;
  const NitiShape to = input_of(copied, backward);
  int8_t *data = (int8_t *)cuda->scratch +
                 niti_blocked_align(niti_cuda_families_workspace(cuda, copied, backward ? NITI_BACKWARD : NITI_FORWARD));
  int8_t *own = weights ? data + niti_blocked_align(niti_shape_count(to)) : NULL;
  switch (how->copying) {
    case NITI_COPY_UNFOLDED: stack(cuda, data, own, in, w, s, copied, s->kh, s->kw); break;
    case NITI_COPY_STACKED: stack(cuda, data, own, in, w, s, copied, s->stride_h, s->stride_w); break;
    default: pad(cuda, data, own, in, w, s, copied, backward); break;
  }
  in->data = data;
  in->shape = to;
  if (!weights) return;
  w->data = own;
  w->shape = (NitiShape){copied->k, copied->kh, copied->kw, copied->c};
}

NitiConv niti_conv_own_weights(const NitiConv *s, NitiCopying copying) {
  NitiConv own = *s;
  if (copying != NITI_COPY_UNFOLDED) return own;
  own.c = (int32_t)sum_of(s);
  own.kh = own.kw = 1;
  own.stride_h = own.stride_w = 1; /* what packing asks for */
  return own;
}
