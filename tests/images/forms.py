"""What programs write into their pictures, in their own form. The request is always the same one."""

from __future__ import annotations

import json
from typing import Any

PROMPT, NEGATIVE = 'a "red" fox, <b> & 雪', "blurry, text: bad"


def _json(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def graph(**changed: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI's first graph, with other nodes in place of some."""
    return {
        "3": _node(
            "KSampler",
            seed=7,
            steps=20,
            cfg=6.5,
            sampler_name="uni_pc",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": _node("CheckpointLoaderSimple", ckpt_name="dream.safetensors"),
        "5": _node("EmptyLatentImage", width=512, height=256, batch_size=1),
        "6": _node("CLIPTextEncode", text=PROMPT, clip=["4", 1]),
        "7": _node("CLIPTextEncode", text=NEGATIVE, clip=["4", 1]),
        "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": _node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    } | changed


ADVANCED = {
    "1": _node("RandomNoise", noise_seed=7),
    "2": _node("KSamplerSelect", sampler_name="uni_pc"),
    "3": _node("BasicScheduler", scheduler="simple", steps=20, denoise=1, model=["10", 0]),
    "4": _node("CFGGuider", cfg=6.5, model=["10", 0], positive=["6", 0], negative=["7", 0]),
    "5": _node("EmptySD3LatentImage", width=["11", 0], height=256, batch_size=1),
    "6": _node("FluxGuidance", guidance=3.5, conditioning=["12", 0]),
    "7": _node("CLIPTextEncode", text=NEGATIVE, clip=["10", 1]),
    "8": _node(
        "SamplerCustomAdvanced",
        noise=["1", 0],
        guider=["4", 0],
        sampler=["2", 0],
        sigmas=["3", 0],
        latent_image=["5", 0],
    ),
    "9": _node("SaveImage", images=["13", 0]),
    "10": _node("UNETLoader", unet_name="flux.safetensors"),
    "11": _node("PrimitiveInt", value=512),
    "12": _node("CLIPTextEncodeFlux", clip_l=PROMPT, t5xxl=["14", 0], guidance=3.5),
    "13": _node("VAEDecode", samples=["8", 0]),
    "14": _node("PrimitiveStringMultiline", value=PROMPT),
}

SDXL = graph(
    **{
        "6": _node("CLIPTextEncodeSDXL", text_g=PROMPT, text_l=PROMPT, width=1024, clip=["4", 1]),
        "7": _node("ConditioningCombine", conditioning_1=["20", 0], conditioning_2=["21", 0]),
        "20": _node("CLIPTextEncode", text="blurry", clip=["4", 1]),
        "21": _node("CLIPTextEncode", text=["22", 0], clip=["4", 1]),
        "22": _node("StringConcatenate", string_a="text:", string_b="bad", delimiter=" "),
    }
)

CONTROLLED = graph(
    **{
        "3": graph()["3"]
        | {
            "class_type": "KSamplerAdvanced",
            "inputs": {
                "add_noise": "enable",
                "noise_seed": ["30", 0],
                "steps": 20,
                "cfg": 6.5,
                "sampler_name": "uni_pc",
                "scheduler": "normal",
                "positive": ["31", 0],
                "negative": ["31", 1],
                "latent_image": ["5", 0],
            },
        },
        "30": _node("Seed (rgthree)", seed=7),
        "31": _node(
            "ControlNetApplyAdvanced",
            strength=0.8,
            start_percent=0.0,
            positive=["6", 0],
            negative=["7", 0],
            control_net=["32", 0],
        ),
        "32": _node("ControlNetLoader", control_net_name="depth.safetensors"),
    }
)

REFINED = graph(
    **{
        "40": _node("LatentUpscale", width=1024, height=512, samples=["3", 0]),
        "41": _node(
            "KSampler",
            seed=99,
            steps=8,
            cfg=2.0,
            sampler_name="euler",
            denoise=0.5,
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["40", 0],
        ),
        "8": _node("VAEDecode", samples=["41", 0]),
    }
)

WAN = {
    "198": _node("WanVideoModelLoader", model="wan\\wan2.1_t2v_14B_fp8.safetensors"),
    "16": _node(
        "WanVideoTextEncode", positive_prompt=PROMPT, negative_prompt=NEGATIVE, t5=["11", 0]
    ),
    "37": _node("WanVideoEmptyEmbeds", width=512, height=256, num_frames=1),
    "27": _node(
        "WanVideoSampler",
        steps=20,
        cfg=6.5,
        shift=5.0,
        seed=7,
        scheduler="unipc",
        model=["198", 0],
        text_embeds=["16", 0],
        image_embeds=["37", 0],
    ),
    "28": _node("WanVideoDecode", samples=["27", 0]),
}

WAN_BRIDGED = WAN | {
    "16": _node("WanVideoTextEmbedBridge", positive=["17", 0], negative=["18", 0]),
    "17": _node("CLIPTextEncode", text=PROMPT, clip=["19", 0]),
    "18": _node("CLIPTextEncode", text=NEGATIVE, clip=["19", 0]),
}

A1111 = f"{PROMPT}\nNegative prompt: {NEGATIVE}\n"
SETTINGS = "Steps: 20, Sampler: UniPC, CFG scale: 6.5, Seed: 7, Size: 512x256"

COMFYUI = {
    "KSampler": graph(),
    "SamplerCustomAdvanced": ADVANCED,
    "SDXL, combined and joined": SDXL,
    "ControlNet, a seed node": CONTROLLED,
    "refined afterwards": REFINED,
    "WanVideo": WAN,
    "WanVideo, bridged": WAN_BRIDGED,
}

FORMS: dict[str, tuple[str, str, str]] = {
    "A1111": ("a1111", A1111 + SETTINGS, ""),
    "A1111 with CRLF": ("a1111", (A1111 + SETTINGS).replace("\n", "\r\n"), ""),
    "A1111 and its extensions": (
        "a1111",
        f"{A1111}{SETTINGS}, Model hash: 6ce0161689, Denoising strength: 0.4, "
        'ADetailer model: face_yolov8n.pt, ADetailer prompt: "a face, Steps: 3", '
        'ControlNet 0: "Module: depth, Model: d, Weight: 1", Hires steps: 10, '
        'Lora hashes: "a: 1f, b: 2e", TI hashes: "easy: c7", Hashes: {"vae": "63", "model": "6c"}, '
        "Version: v1.10.1",
        "ControlNet 0",
    ),
    "dynamic prompts": (
        "a1111",
        f"{A1111}{SETTINGS}\nTemplate: a {{red|blue}} fox\nof two lines\nNegative Template: blurry",
        "Template",
    ),
    "one line": ("a1111", f"{PROMPT} Negative prompt: {NEGATIVE} {SETTINGS}", ""),
    "Civitai's generator": (
        "a1111",
        f"{A1111}{SETTINGS}, Clip skip: 2, Created Date: 2025-05-22T11:31:32.8462147Z, "
        'Civitai resources: [{"type":"lora","weight":0.8,"modelVersionId":1}], Civitai metadata: {}',
        "Civitai resources",
    ),
    "SD.Next": (
        "a1111",
        f"{A1111}Steps: 20, Seed: 7, Sampler: UniPC, CFG scale: 6.5, Size: 512x256, "
        "Parser: Full parser, Model: dream, Backend: Diffusers, App: SD.Next, Version: 900264a, "
        "Operations: upscale; hires; txt2img",
        "Operations",
    ),
    "SD.Next with bars": (
        "a1111",
        f"Prompt: {A1111}Steps: 20 | Seed: 7 | Sampler: UniPC | CFG scale: 6.5 | Size: 512x256 | "
        "Parser: Full parser | Operations: a, b",
        "Operations",
    ),
    "stable-diffusion.cpp": (
        "a1111",
        f"{A1111}Steps: 20, CFG scale: 6.500000, Guidance: 3.500000, Eta: 0.000000, Seed: 7, "
        "Size: 512x256, Model: sd.safetensors, RNG: cuda, Sampler: uni_pc, "
        "Version: stable-diffusion.cpp",
        "RNG",
    ),
    "SwarmUI": (
        "swarmui",
        _json(
            sui_image_params={
                "prompt": PROMPT,
                "negativeprompt": NEGATIVE,
                "model": "Wan2.1_14B",
                "images": 1,
                "seed": 7,
                "steps": "20",
                "cfgscale": "6.5",
                "sampler": "uni_pc",
                "scheduler": "normal",
                "width": 512,
                "height": 256,
                "swarm_version": "0.9.6.0",
            },
            sui_extra_data={"date": "2025-01-01"},
        ),
        "sui_extra_data",
    ),
    "Fooocus": (
        "fooocus",
        _json(
            adm_guidance="(1.5, 0.8, 0.3)",
            base_model="juggernaut",
            full_prompt=[PROMPT, "cinematic"],
            guidance_scale=6.5,
            negative_prompt=NEGATIVE,
            performance="Speed",
            prompt=PROMPT,
            resolution="(512, 256)",
            sampler="uni_pc",
            scheduler="karras",
            seed="7",
            steps=20,
            version="Fooocus v2.5.5",
        ),
        "full_prompt",
    ),
    "RuinedFooocus": (
        "fooocus",
        _json(
            Prompt=PROMPT,
            Negative=NEGATIVE,
            steps=20,
            cfg=6.5,
            width=512,
            height=256,
            seed=7,
            sampler_name="uni_pc",
            scheduler="simple",
            base_model_name="juggernaut.safetensors",
            loras=[["BFA3BB4FBE", "1.0 - helios.safetensors"]],
            software="RuinedFooocus",
        ),
        "loras",
    ),
    "InvokeAI": (
        "invokeai",
        _json(
            generation_mode="txt2img",
            positive_prompt=PROMPT,
            negative_prompt=NEGATIVE,
            width=512,
            height=256,
            seed=7,
            cfg_scale=6.5,
            steps=20,
            scheduler="unipc",
            model={"key": "179d02bf", "name": "wai_v16"},
            app_version="5.0.0",
        ),
        "model",
    ),
    "Civitai's ComfyUI": (
        "civitai",
        _json(
            **{"resource-stack": _node("CheckpointLoaderSimple", ckpt_name="urn:air:1")},
            extra={"airs": ["urn:air:1"]},
            extraMetadata=_json(
                prompt=PROMPT,
                negativePrompt=NEGATIVE,
                cfgScale=6.5,
                sampler="uni_pc",
                steps=20,
                seed=7,
                width=512,
                height=256,
                resources=[{"modelVersionId": 1}],
            ),
        ),
        "resources",
    ),
    "NovelAI": (
        "novelai",
        _json(
            prompt=PROMPT,
            uc=NEGATIVE,
            steps=20,
            scale=6.5,
            seed=7,
            sampler="uni_pc",
            noise_schedule="karras",
            width=512,
            height=256,
        ),
        "noise_schedule",
    ),
    "Draw Things": (
        "draw-things",
        _json(
            c=PROMPT,
            uc=NEGATIVE,
            model="sd_v1.5_f16.ckpt",
            sampler="UniPC",
            scale=6.5,
            seed=7,
            size="512x256",
            steps=20,
            strength=1,
        ),
        "strength",
    ),
    "Easy Diffusion": (
        "easy-diffusion",
        _json(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            seed=7,
            use_stable_diffusion_model="sd-v1-5",
            sampler_name="unipc",
            width=512,
            height=256,
            num_inference_steps=20,
            guidance_scale=6.5,
        ),
        "use_stable_diffusion_model",
    ),
    "a program without a name": (
        "other",
        _json(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            resolution="512 x 256",
            guidance_scale=6.5,
            num_inference_steps=20,
            seed=7,
            sampler="UniPC",
        ),
        "",
    ),
    "ComfyUI, all in one object": ("comfyui", _json(prompt=graph(), workflow={"nodes": []}), ""),
    **{f"ComfyUI, {name}": ("comfyui", json.dumps(form), "") for name, form in COMFYUI.items()},
}
"""The writer, the text, and one of the settings that are listed as not used."""

FIELDS = {
    "prompt": PROMPT,
    "negative_prompt": NEGATIVE,
    "steps": 20,
    "guidance_scale": 6.5,
    "seed": 7,
    "width": 512,
    "height": 256,
    "scheduler": "unipc",
}
