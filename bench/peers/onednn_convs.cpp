// How fast oneDNN computes the convolutions of a network, one by one: a peer of `niti bench kernels`.
//
//   g++ -O2 -std=c++17 -o onednn_convs onednn_convs.cpp -ldnnl        (Debian: libdnnl-dev)
//   OMP_NUM_THREADS=2 ./onednn_convs KIND BATCH SECONDS <LAYERS
//
// KIND: fp32, winograd (fp32; direct where oneDNN has no Winograd kernel for a layer), bf16, or int8 (u8 activations, s8 weights,
// u8 output; forward only). A layer is one line of standard input: h w c k kh kw stride_h stride_w pad_h pad_w first; first is 1
// for the network's first layer, which has no backward to its input. oneDNN chooses the layouts and no reordering is counted,
// which is the most favourable case: a network kept in its layouts throughout. Every primitive runs once to warm up, then at
// least twice and for its share of SECONDS. One JSON object on standard output: the medians in milliseconds, their sum, and the
// implementations that oneDNN took.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dnnl.hpp>
#include <iostream>
#include <string>
#include <unordered_map>
#include <vector>

#if DNNL_VERSION_MAJOR != 2
#error "written for the interface of oneDNN 2"
#endif

using namespace dnnl;
using tag = memory::format_tag;
using type = memory::data_type;

struct Layer {
  memory::dim h, w, c, k, kh, kw, stride_h, stride_w, pad_h, pad_w;
  int first;
};

struct Result {
  std::string direction, implementation;
  double milliseconds;
};

struct Kind {
  type source, weights, destination, gradient;
  algorithm wanted;
  bool backward;
};

static Kind kind_of(const std::string &name) {
  if (name == "fp32") return {type::f32, type::f32, type::f32, type::f32, algorithm::convolution_direct, true};
  if (name == "winograd") return {type::f32, type::f32, type::f32, type::f32, algorithm::convolution_winograd, true};
  if (name == "bf16") return {type::bf16, type::bf16, type::bf16, type::bf16, algorithm::convolution_direct, true};
  if (name == "int8") return {type::u8, type::s8, type::u8, type::f32, algorithm::convolution_direct, false};
  std::fprintf(stderr, "onednn_convs: kind \"%s\": expected fp32, winograd, bf16 or int8\n", name.c_str());
  std::exit(2);
}

// Memory that is never 0 or subnormal: small positive numbers of the type.
static memory make(const memory::desc &desc, const engine &e) {
  memory m(desc, e);
  auto *bytes = static_cast<unsigned char *>(m.get_data_handle());
  const size_t size = desc.get_size();
  const auto of = static_cast<type>(desc.data.data_type);
  if (of == type::f32) {
    std::fill_n(reinterpret_cast<float *>(bytes), size / sizeof(float), 0.01f);
  } else if (of == type::bf16) {
    std::fill_n(reinterpret_cast<uint16_t *>(bytes), size / sizeof(uint16_t), uint16_t{0x3c24});  // 0.01
  } else {
    std::memset(bytes, 3, size);
  }
  return m;
}

static double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double measure(const primitive &p, const std::unordered_map<int, memory> &args, stream &s, double milliseconds) {
  std::vector<double> times;
  p.execute(s, args);
  s.wait();
  const double begin = now();
  while (times.size() < 2 || (times.size() < 1000 && now() - begin < milliseconds)) {
    const double at = now();
    p.execute(s, args);
    s.wait();
    times.push_back(now() - at);
  }
  std::sort(times.begin(), times.end());
  return (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2;
}

class Bench {
 public:
  Bench(const Kind &kind, memory::dim batch, double share) : kind_(kind), batch_(batch), share_(share) {}

  void run(const Layer &l, std::vector<Result> *results) {
    if (try_run(l, kind_.wanted, results)) return;
    if (kind_.wanted == algorithm::convolution_winograd && try_run(l, algorithm::convolution_direct, results)) return;
    throw std::runtime_error("oneDNN has no kernel for a layer");
  }

 private:
  // All directions by one algorithm, or none: the layouts of Winograd's directions need not match, so each stands alone.
  bool try_run(const Layer &l, algorithm wanted, std::vector<Result> *results) {
    const memory::dim oh = (l.h + 2 * l.pad_h - l.kh) / l.stride_h + 1, ow = (l.w + 2 * l.pad_w - l.kw) / l.stride_w + 1;
    const memory::desc x({batch_, l.c, l.h, l.w}, kind_.source, tag::any), y({batch_, l.k, oh, ow}, kind_.destination, tag::any),
        w({l.k, l.c, l.kh, l.kw}, kind_.weights, tag::any), dw({l.k, l.c, l.kh, l.kw}, kind_.gradient, tag::any);
    const memory::dims stride{l.stride_h, l.stride_w}, pad{l.pad_h, l.pad_w};
    std::vector<Result> found;
    try {
      const convolution_forward::desc forward(kind_.backward ? prop_kind::forward_training : prop_kind::forward_inference, wanted,
                                              x, w, y, stride, pad, pad);
      primitive_attr scale;
      if (!kind_.backward) scale.set_output_scales(0, {0.01f});
      const convolution_forward::primitive_desc hint(forward, scale, engine_);
      found.push_back({"forward", hint.impl_info_str(),
                       measure(convolution_forward(hint),
                               {{DNNL_ARG_SRC, make(hint.src_desc(), engine_)},
                                {DNNL_ARG_WEIGHTS, make(hint.weights_desc(), engine_)},
                                {DNNL_ARG_DST, make(hint.dst_desc(), engine_)}},
                               stream_, share_)});
      if (kind_.backward && !l.first) {
        const convolution_backward_data::desc desc(wanted, x, w, y, stride, pad, pad);
        const convolution_backward_data::primitive_desc p(desc, engine_, hint);
        found.push_back({"backward", p.impl_info_str(),
                         measure(convolution_backward_data(p),
                                 {{DNNL_ARG_DIFF_SRC, make(p.diff_src_desc(), engine_)},
                                  {DNNL_ARG_WEIGHTS, make(p.weights_desc(), engine_)},
                                  {DNNL_ARG_DIFF_DST, make(p.diff_dst_desc(), engine_)}},
                                 stream_, share_)});
      }
      if (kind_.backward) {
        const convolution_backward_weights::desc desc(wanted, x, dw, y, stride, pad, pad);
        const convolution_backward_weights::primitive_desc p(desc, engine_, hint);
        found.push_back({"gradient", p.impl_info_str(),
                         measure(convolution_backward_weights(p),
                                 {{DNNL_ARG_SRC, make(p.src_desc(), engine_)},
                                  {DNNL_ARG_DIFF_WEIGHTS, make(p.diff_weights_desc(), engine_)},
                                  {DNNL_ARG_DIFF_DST, make(p.diff_dst_desc(), engine_)}},
                                 stream_, share_)});
      }
    } catch (const dnnl::error &e) {
      if (e.status == dnnl_unimplemented) return false;
      throw;
    }
    results->insert(results->end(), found.begin(), found.end());
    return true;
  }

  Kind kind_;
  memory::dim batch_;
  double share_;  // milliseconds for one primitive
  engine engine_{engine::kind::cpu, 0};
  stream stream_{engine_};
};

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: onednn_convs fp32|winograd|bf16|int8 BATCH SECONDS <LAYERS\n");
    return 2;
  }
  const Kind kind = kind_of(argv[1]);
  const long batch = std::atol(argv[2]);
  const double seconds = std::atof(argv[3]);
  std::vector<Layer> layers;
  Layer l;
  while (std::cin >> l.h >> l.w >> l.c >> l.k >> l.kh >> l.kw >> l.stride_h >> l.stride_w >> l.pad_h >> l.pad_w >> l.first)
    layers.push_back(l);
  if (batch < 1 || layers.empty() || !std::cin.eof()) {
    std::fprintf(stderr, "onednn_convs: expected a batch of at least 1, and layers of 11 numbers on standard input\n");
    return 2;
  }
  try {
    Bench bench(kind, batch, seconds * 1e3 / static_cast<double>((kind.backward ? 3 : 1) * layers.size()));
    std::vector<Result> results;
    std::vector<size_t> ends;
    for (const Layer &layer : layers) {
      bench.run(layer, &results);
      ends.push_back(results.size());
    }
    double sum = 0;
    std::string rows;
    for (size_t i = 0, layer = 0; i < results.size(); ++i) {
      if (i == ends[layer]) ++layer;
      char row[256];
      std::snprintf(
          row, sizeof row, "%s{\"layer\": %zu, \"direction\": \"%s\", \"implementation\": \"%s\", \"milliseconds\": %.4f}",
          i ? ", " : "", layer + 1, results[i].direction.c_str(), results[i].implementation.c_str(), results[i].milliseconds);
      rows += row;
      sum += results[i].milliseconds;
    }
    const dnnl_version_t *v = dnnl_version();
    std::printf(
        "{\"bench\": \"convolutions\", \"peer\": \"oneDNN\", \"version\": \"%d.%d.%d\", \"kind\": \"%s\", \"batch\": %ld, "
        "\"milliseconds\": {\"median\": %.4f}, \"images_per_second\": %.4f, \"kernels\": [%s]}\n",
        v->major, v->minor, v->patch, argv[1], batch, sum, static_cast<double>(batch) * 1e3 / sum, rows.c_str());
  } catch (const std::exception &e) {
    std::fprintf(stderr, "onednn_convs: %s, batch %ld: %s\n", argv[1], batch, e.what());
    return 1;
  }
  return 0;
}
