/* How many windows fit along a side, and the windows of pools. */
#include "layer/shape.h"

NitiStatus niti_window_count(int32_t *out, const char *side, int32_t size, int32_t kernel, int32_t stride, int32_t padding) {
  const int64_t padded = (int64_t)size + 2 * (int64_t)padding;
  if (kernel > padded) {
    return niti_fail(NITI_ERROR_MODEL,
                     "a kernel %s of %d does not fit into an input %s of %d with padding %d (expected at most %lld)", side,
                     kernel, side, size, padding, (long long)padded);
  }
  *out = (int32_t)((padded - kernel) / stride + 1);
  return NITI_OK;
}

NitiStatus niti_window_shape(const NitiLayerSpec *spec, NitiShape in, NitiShape *out) {
  NITI_TRY(niti_window_count(&out->h, "height", in.h, spec->kernel[0], spec->stride[0], spec->padding[0]));
  return niti_window_count(&out->w, "width", in.w, spec->kernel[1], spec->stride[1], spec->padding[1]);
}

NitiStatus niti_check_padding(const NitiLayerSpec *spec) {
  if (spec->padding[0] < spec->kernel[0] && spec->padding[1] < spec->kernel[1]) return NITI_OK;
  return niti_fail(NITI_ERROR_MODEL, "padding %dx%d leaves windows without a cell (expected less than the kernel, %dx%d)",
                   spec->padding[0], spec->padding[1], spec->kernel[0], spec->kernel[1]);
}

NitiPool niti_pool_of(const NitiLayer *layer) {
  const NitiLayerSpec *s = layer->spec;
  const NitiShape in = layer->in[0];
  const bool whole = s->kernel[0] == 0;
  return (NitiPool){.n = in.n,
                    .h = in.h,
                    .w = in.w,
                    .c = in.c,
                    .oh = layer->out.h,
                    .ow = layer->out.w,
                    .kh = whole ? in.h : s->kernel[0],
                    .kw = whole ? in.w : s->kernel[1],
                    .stride_h = whole ? in.h : s->stride[0],
                    .stride_w = whole ? in.w : s->stride[1],
                    .pad_h = s->padding[0],
                    .pad_w = s->padding[1]};
}
