// oneDNN's vanilla RNN primitive, one layer, left to right, float32, behind functions that ctypes can call.
// Packing weights into the library's own format and unpacking gradients is done outside `run`.

#include <cstring>
#include <exception>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

using dnnl::memory;
using tag = memory::format_tag;
using desc = memory::desc;
using arguments = std::unordered_map<int, memory>;

namespace {

constexpr auto f32 = memory::data_type::f32;
std::string last_error;

struct Network {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    dnnl::primitive forward, backward;
    arguments forward_arguments, backward_arguments;
    memory y, h_n, d_x, d_weight_ih, d_weight_hh, d_bias;
    bool has_backward;

    memory allocated(const desc &d) {
        memory m(d, engine);
        std::memset(m.get_data_handle(), 0, d.get_size());
        return m;
    }

    // Plain weights (H, ·) in the format that a primitive wants.
    memory packed(const desc &wanted, memory plain) {
        auto m = allocated(wanted);
        dnnl::reorder(plain, m).execute(stream, plain, m);
        stream.wait();
        return m;
    }

    memory filled(const desc &d, const float *values) {
        auto m = allocated(d);
        std::memcpy(m.get_data_handle(), values, d.get_size());
        return m;
    }

    Network(int T, int B, int I, int H, bool is_relu, bool has_backward, const float *x_tbi, const float *weight_ih_hi,
            const float *weight_hh_hh, const float *bias_h, const float *d_y_tbh)
        : has_backward(has_backward) {
        const auto f = is_relu ? dnnl::algorithm::eltwise_relu : dnnl::algorithm::eltwise_tanh;
        const auto direction = dnnl::rnn_direction::unidirectional_left2right;
        const desc x_d({T, B, I}, f32, tag::tnc), y_d({T, B, H}, f32, tag::tnc), h_d({1, 1, B, H}, f32, tag::ldnc);
        const desc ih_d({1, 1, I, 1, H}, f32, tag::any), hh_d({1, 1, H, 1, H}, f32, tag::any);
        const desc bias_d({1, 1, 1, H}, f32, tag::ldgo);
        const auto kind = has_backward ? dnnl::prop_kind::forward_training : dnnl::prop_kind::forward_inference;

        auto x = filled(x_d, x_tbi), bias = filled(bias_d, bias_h);
        auto ih = filled(desc({1, 1, I, 1, H}, f32, tag::ldgoi), weight_ih_hi);
        auto hh = filled(desc({1, 1, H, 1, H}, f32, tag::ldgoi), weight_hh_hh);
        y = allocated(y_d), h_n = allocated(h_d);
        auto h_0 = allocated(h_d);  // without initial states, 2023.2 gets d_weight_hh wrong

        dnnl::vanilla_rnn_forward::primitive_desc pd(engine, kind, f, direction, x_d, h_d, ih_d, hh_d, bias_d, y_d,
                                                     h_d);
        forward = dnnl::vanilla_rnn_forward(pd);
        forward_arguments = {{DNNL_ARG_SRC_LAYER, x},
                             {DNNL_ARG_BIAS, bias},
                             {DNNL_ARG_DST_LAYER, y},
                             {DNNL_ARG_SRC_ITER, h_0},
                             {DNNL_ARG_DST_ITER, h_n},
                             {DNNL_ARG_WEIGHTS_LAYER, packed(pd.weights_layer_desc(), ih)},
                             {DNNL_ARG_WEIGHTS_ITER, packed(pd.weights_iter_desc(), hh)}};
        if (!has_backward) return;

        auto workspace = allocated(pd.workspace_desc());
        forward_arguments[DNNL_ARG_WORKSPACE] = workspace;
        dnnl::vanilla_rnn_backward::primitive_desc bpd(engine, dnnl::prop_kind::backward, f, direction, x_d, h_d, ih_d,
                                                       hh_d, bias_d, y_d, h_d, x_d, h_d, ih_d, hh_d, bias_d, y_d, h_d,
                                                       pd);
        backward = dnnl::vanilla_rnn_backward(bpd);
        d_x = allocated(x_d), d_bias = allocated(bias_d);
        d_weight_ih = allocated(bpd.diff_weights_layer_desc()), d_weight_hh = allocated(bpd.diff_weights_iter_desc());
        backward_arguments = {{DNNL_ARG_SRC_LAYER, x},
                              {DNNL_ARG_BIAS, bias},
                              {DNNL_ARG_DST_LAYER, y},
                              {DNNL_ARG_SRC_ITER, h_0},
                              {DNNL_ARG_DST_ITER, h_n},
                              {DNNL_ARG_WEIGHTS_LAYER, packed(bpd.weights_layer_desc(), ih)},
                              {DNNL_ARG_WEIGHTS_ITER, packed(bpd.weights_iter_desc(), hh)},
                              {DNNL_ARG_WORKSPACE, workspace},
                              {DNNL_ARG_DIFF_DST_LAYER, filled(y_d, d_y_tbh)},
                              {DNNL_ARG_DIFF_SRC_LAYER, d_x},
                              {DNNL_ARG_DIFF_DST_ITER, allocated(h_d)},
                              {DNNL_ARG_DIFF_SRC_ITER, allocated(h_d)},
                              {DNNL_ARG_DIFF_WEIGHTS_LAYER, d_weight_ih},
                              {DNNL_ARG_DIFF_WEIGHTS_ITER, d_weight_hh},
                              {DNNL_ARG_DIFF_BIAS, d_bias}};
    }

    void run() {
        forward.execute(stream, forward_arguments);
        if (has_backward) {
            for (auto *m : {&d_weight_ih, &d_weight_hh, &d_bias})  // the primitive adds to them
                std::memset(m->get_data_handle(), 0, m->get_desc().get_size());
            backward.execute(stream, backward_arguments);
        }
        stream.wait();
    }

    void copy(memory from, desc plain, float *to) {
        memory m(plain, engine, to);
        dnnl::reorder(from, m).execute(stream, from, m);
        stream.wait();
    }
};

}  // namespace

extern "C" {

const char *onednn_error() { return last_error.c_str(); }

// NULL if there is no such primitive: see onednn_error.
void *onednn_new(int T, int B, int I, int H, int is_relu, int has_backward, const float *x, const float *weight_ih,
                 const float *weight_hh, const float *bias, const float *d_y) {
    try {
        return new Network(T, B, I, H, is_relu, has_backward, x, weight_ih, weight_hh, bias, d_y);
    } catch (const std::exception &error) {
        last_error = error.what();
        return nullptr;
    }
}

void onednn_run(void *network) { static_cast<Network *>(network)->run(); }

// y (T, B, H), h_n (B, H); with backward d_x (T, B, I), d_weight_ih (H, I), d_weight_hh (H, H), d_bias (H,).
void onednn_results(void *network, float *y, float *h_n, float *d_x, float *d_weight_ih, float *d_weight_hh,
                    float *d_bias) {
    auto &n = *static_cast<Network *>(network);
    n.copy(n.y, n.y.get_desc(), y);
    n.copy(n.h_n, n.h_n.get_desc(), h_n);
    if (!n.has_backward) return;
    n.copy(n.d_x, n.d_x.get_desc(), d_x);
    n.copy(n.d_bias, n.d_bias.get_desc(), d_bias);
    n.copy(n.d_weight_ih, desc(n.d_weight_ih.get_desc().get_dims(), f32, tag::ldgoi), d_weight_ih);
    n.copy(n.d_weight_hh, desc(n.d_weight_hh.get_desc().get_dims(), f32, tag::ldgoi), d_weight_hh);
}

void onednn_delete(void *network) { delete static_cast<Network *>(network); }
}
