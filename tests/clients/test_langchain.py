"""LangChain: its own standard cases for chat models and embeddings, against us."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from served import Server


class Standard(ChatModelIntegrationTests):
    """Text alone: images, sound and documents are not declared, so their cases say themselves that they are skipped."""

    name, responses = "", False

    @pytest.fixture(autouse=True)
    def _there(self, server: Server) -> None:
        self.server = server

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.name, "base_url": self.server.v1, "api_key": self.server.keys["alice"], "max_retries": 0,
                "stream_usage": True, "use_responses_api": self.responses}  # fmt: skip

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "journeyman"


class TestChat(Standard):
    name = "apprentice"


class TestResponses(Standard):
    name, responses = "apprentice", True


class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _there(self, server: Server) -> None:
        self.server = server

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            "model": "universal-sentence-encoder",
            "base_url": self.server.v1,
            "api_key": self.server.keys["alice"],
            "check_embedding_ctx_length": False,
        }  # fmt: skip  (else it cuts texts by a tokenizer that it fetches)
